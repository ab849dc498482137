"""Hosts on a network of their own, for partitions: network namespaces, joined by veth pairs and a bridge. Needs root.

Everything is inside namespaces that a `Network` makes: one for the bridge, one for each host. No address, link or rule exists
outside, and several networks have the same addresses without meeting. A cut drops what arrives from the other host, silently, as a
broken network does: connections hang instead of being refused. Each direction of each pair is cut by itself, so A and B may lose
each other while both still reach C.

At the end every process in the namespaces is killed and the namespaces are gone; those of a test run that was killed itself go
when the next one makes a network.
"""

import ctypes
import itertools
import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from tests.support.started import Started

COMMAND_TIMEOUT_S: Final = 30.0
HOSTS_MAX: Final = 100
PREFIX: Final = "tokmesh-test-"
NETWORK: Final = "10.83.0"
_CLONE_NEWNET: Final = 0x40000000

T = TypeVar("T")

_numbers = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


def _run(*command: str, text: str | None = None) -> str:
    """Runs a command that must succeed; what it printed."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout} (namespaces need root)"
    return done.stdout


class Host:
    """One host of a network: a `Place` (tests/support/places.py) with an address."""

    def __init__(self, namespace: str, number: int) -> None:
        self.namespace = namespace
        self.address = f"{NETWORK}.{number + 1}"

    def command(self, command: Sequence[str]) -> list[str]:
        """The command line that runs `command` on this host, in the process that it starts."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def call(self, work: Callable[[], T]) -> T:
        """What `work()` returns or raises, run in a thread on this host: sockets that it makes are this host's for good."""
        outcome: list[T] = []
        failure: list[BaseException] = []

        def inside() -> None:
            try:
                with open(f"/run/netns/{self.namespace}", "rb") as namespace:
                    if _libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), f"setns {self.namespace}")
                outcome.append(work())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=inside, daemon=True)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]


class Network(Started):
    """`count` hosts that all reach each other, until they are cut."""

    def __init__(self, count: int) -> None:
        assert 1 <= count <= HOSTS_MAX
        name = f"{PREFIX}{os.getpid()}-{next(_numbers)}"
        self._bridge = f"{name}-bridge"
        self.hosts = [Host(f"{name}-{number}", number) for number in range(count)]

    def begin(self) -> None:
        """All hosts, and none left of test runs that are gone."""
        _remove_abandoned()
        self._make()

    def _make(self) -> None:
        for namespace in (self._bridge, *(host.namespace for host in self.hosts)):
            _run("ip", "netns", "add", namespace)
        lines = ["link add bridge0 type bridge", "link set bridge0 up"]
        for number, host in enumerate(self.hosts):
            lines += [
                f"link add port{number} type veth peer name eth0 netns {host.namespace}",
                f"link set port{number} master bridge0 up",
            ]
        _run("ip", "-netns", self._bridge, "-batch", "-", text="\n".join(lines))
        for host in self.hosts:
            lines = ["link set lo up", f"address add {host.address}/24 dev eth0", "link set eth0 up"]
            _run("ip", "-netns", host.namespace, "-batch", "-", text="\n".join(lines))

    def cut(self, some: Iterable[Host], others: Iterable[Host]) -> None:
        """Nothing travels any more between a host of `some` and one of `others`, in either direction."""
        others = list(others)
        for one in some:
            for other in others:
                self.deafen(one, other)
                self.deafen(other, one)

    def isolate(self, some: Iterable[Host]) -> None:
        """Cuts `some`, who go on hearing each other, from everybody else."""
        some = list(some)
        self.cut(some, [host for host in self.hosts if host not in some])

    def deafen(self, listener: Host, speaker: Host) -> None:
        """Nothing from `speaker` reaches `listener` any more; the other direction stays."""
        assert listener is not speaker, "a host hears itself"
        _run(*listener.command(["iptables", "-w", "-A", "INPUT", "-s", speaker.address, "-j", "DROP"]))

    def heal(self) -> None:
        """Everybody reaches everybody again."""
        for host in self.hosts:
            _run(*host.command(["iptables", "-w", "-F", "INPUT"]))

    def close(self) -> None:
        """Kills every process on the hosts, and removes the namespaces."""
        for namespace in (*(host.namespace for host in self.hosts), self._bridge):
            _remove(namespace)


def _remove(namespace: str) -> None:
    if Path("/run/netns", namespace).exists():
        for pid in _run("ip", "netns", "pids", namespace).split():
            # This process is listed while a thread of it is there, and must live to clean up.
            if int(pid) != os.getpid():
                subprocess.run(["kill", "-KILL", pid], capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False)
        _run("ip", "netns", "delete", namespace)


def _remove_abandoned() -> None:
    """Removes the namespaces of test runs that are gone."""
    for line in _run("ip", "netns", "list").splitlines():
        name = line.split()[0]
        if name.startswith(PREFIX) and not Path("/proc", name.removeprefix(PREFIX).partition("-")[0]).exists():
            _remove(name)
