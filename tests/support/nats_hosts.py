"""Hosts on which a configuration of nats-server runs as it is: its paths under /etc and /var/lib, its host names, its ports.

Each host is a network namespace (`tests.support.namespaces`). A process on it sees /etc with a folder `nats` and a `hosts` of its
own, laid over the machine's, and a /var/lib/nats that is a folder of the test: in a mount namespace of that process, so that
nothing of it is seen outside or left behind.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from tests.support.certificates import Authority
from tests.support.namespaces import Host, Network
from tests.support.nats import NatsServer, Ports

NAMES: Final = ("nats-1", "nats-2", "nats-3")
CONFIG: Final = Path("/etc/nats/nats-server.conf")
T = TypeVar("T")

_FURNISH: Final = """\
set -e
mount -t overlay overlay -o "lowerdir=$1/etc:/etc" /etc
mount -t overlay overlay -o "lowerdir=$1/lib:/var/lib" /var/lib
mount --bind "$1/store" /var/lib/nats
shift
exec "$@"
"""


class FurnishedHost:
    """A `Place` (tests/support/places.py): a host whose processes see what `folder` has as etc, lib and store."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.address = host.address
        self._host = host
        self._folder = folder

    def command(self, command: Sequence[str]) -> list[str]:
        """The command line that runs `command` on this host, among its files."""
        return self._host.command(["sh", "-c", _FURNISH, "sh", str(self._folder), *command])

    def call(self, work: Callable[[], T]) -> T:
        """As `Host.call`: on this host's network, among the machine's files."""
        return self._host.call(work)


class NatsHosts:
    """Three hosts, nats-1 to nats-3, with one configuration, and certificates of one authority.

    What a host has is in `folder`, under its name: etc, lib, store. certificates: a folder that has NAME.pem, NAME.key and ca.pem,
    in place of those made here.
    """

    def __init__(
        self, folder: Path, network: Network, config: str, env: Mapping[str, str], certificates: Path | None = None
    ) -> None:
        self.folder = folder
        self.network = network
        self.authority = Authority(folder)
        self.servers: list[NatsServer] = []
        for name, host in zip(NAMES, network.hosts, strict=True):
            own = folder / name
            nats = own / "etc" / "nats"
            for made in (nats / "tls", own / "lib" / "nats", own / "store"):
                made.mkdir(parents=True)
            (nats / CONFIG.name).write_text(config)
            cert_file, key_file, ca_file = (nats / "tls" / each for each in ("server.pem", "server.key", "ca.pem"))
            if certificates is None:
                self.authority.issue(cert_file, key_file, name, host.address)
                shutil.copy(self.authority.ca_file, ca_file)
            else:
                shutil.copy(certificates / f"{name}.pem", cert_file)
                shutil.copy(certificates / f"{name}.key", key_file)
                shutil.copy(certificates / "ca.pem", ca_file)
            known = "".join(f"{other.address} {name}\n" for name, other in zip(NAMES, network.hosts, strict=True))
            (own / "etc" / "hosts").write_text(f"127.0.0.1 localhost\n{known}")
            place = FurnishedHost(host, own)
            self.servers.append(
                NatsServer(
                    name, folder, CONFIG, Ports(), env={"NATS_SERVER_NAME": name, **env}, place=place, monitor_address="127.0.0.1"
                )
            )  # fmt: skip

    @property
    def urls(self) -> list[str]:
        """Where clients connect, from a host of this network."""
        return [f"tls://{server.place.address}:{server.ports.client}" for server in self.servers]

    def call(self, work: Callable[[], T]) -> T:
        """What `work()` returns, run on the network of the first host."""
        return self.network.hosts[0].call(work)


@contextlib.contextmanager
def nats_hosts(
    folder: Path, config: str, env: Mapping[str, str] | None = None, certificates: Path | None = None
) -> Iterator[NatsHosts]:
    """Three hosts whose servers run and are ready."""
    with Network(len(NAMES)) as network:
        hosts = NatsHosts(folder, network, config, env or {}, certificates)
        try:
            for server in hosts.servers:
                server.spawn()
            for server in hosts.servers:
                server.wait_ready()
            yield hosts
        finally:
            for server in hosts.servers:
                server.kill()
