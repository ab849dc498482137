"""Where the processes of a test run and are asked: loopback of this machine, or a host of `tests.support.namespaces`."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

T = TypeVar("T")


class Place(Protocol):
    """Where a process runs, and is asked."""

    address: str

    def command(self, command: Sequence[str]) -> list[str]:
        """The command line that runs `command` there, in the very process that it starts."""

    def call(self, work: Callable[[], T]) -> T:
        """What `work()` returns, run there."""


class Loopback:
    """127.0.0.1 of this machine."""

    address = "127.0.0.1"

    def command(self, command: Sequence[str]) -> list[str]:
        """The command itself."""
        return list(command)

    def call(self, work: Callable[[], T]) -> T:
        """Runs it here."""
        return work()


LOOPBACK: Final = Loopback()
