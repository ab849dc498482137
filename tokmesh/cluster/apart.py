"""What this node must know of standing apart from the others; host/apart.py keeps it on the disk."""

from typing import Protocol


class Began(Protocol):
    """That this node began anew by itself, from the stream made at `created_ns` (Unix), of that cluster; time_ms: when, Unix."""

    @property
    def time_ms(self) -> int: ...
    @property
    def created_ns(self) -> int: ...
    @property
    def cluster_id(self) -> bytes: ...


class Apart(Protocol):
    """Whether this node stands apart, its table being wrong: in this process and all that follow, until it begins anew."""

    @property
    def reason(self) -> str | None:
        """None: it does not."""

    @property
    def cure(self) -> str:
        """What follows, for people."""

    @property
    def began(self) -> Began | None:
        """The last time that it began anew by itself."""

    def begin(self, reason: str, time_ms: int, created_ns: int, cluster_id: bytes) -> None:
        """From now on, as of that time (Unix), following that stream; written down in another thread."""
