"""How the log's segments are kept: which are sealed, under what, and what opens those that are.

Invariants: whether a segment is encrypted, and under which key, is said by its own header and by nothing else; so segments of
before encryption was turned on, or off, or given another key, are read as they are, and only new ones follow the settings. A key
that is missing is a refusal before anything is read or changed.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tokmesh._core import wal
from tokmesh.errors import ApiError

if TYPE_CHECKING:  # the library it needs is an extra
    from tokmesh.storage.encryption import KeySet, Opener, Sealer

PURPOSE: Final = b"log segment"


class KeyMissing(ApiError):
    """A file is encrypted under a key that is not at hand (TM-CFG-1006). `str()` names the file, the key's id and the cure."""

    def __init__(self, path: Path, key_id: bytes, keys: "KeySet | None") -> None:
        super().__init__("TM-CFG-1006", {"file": path.name, "key_id": key_id.hex()})
        self.path = path
        self.key_id = key_id
        self._known = ", ".join(each.hex() for each in keys.key_ids) if keys is not None else ""

    def __str__(self) -> str:
        if self._known:
            reason = f"which is none of the keys given ({self._known}): add that key behind the first"
        else:
            reason = "and no key is given: name one with storage.encryption.key_file, .key_command or .key_variable"
        return f"{self.code}: {self.path} is encrypted under key {self.key_id.hex()}, {reason}. Nothing was changed"


class SegmentKeys(NamedTuple):
    """keys: that open, None when there are none; sealing: whether new segments are encrypted, under the first of them."""

    keys: "KeySet | None"
    sealing: bool

    def new_sealer(self) -> "Sealer | None":
        """Of one new segment; None when it is to be plain."""
        if not self.sealing:
            return None
        assert self.keys is not None, "sealing needs a key"
        return self.keys.new_sealer(PURPOSE)

    def opener(self, path: Path, header: wal.SegmentHeader) -> "Opener | None":
        """Of the segment with this header; None when it is plain. KeyMissing."""
        if not header.key_id:
            return None
        self._refuse_unknown(path, header)
        assert self.keys is not None
        return self.keys.opener(header.key_id, header.salt, PURPOSE)

    def refuse_unknown(self, paths: Iterable[Path]) -> None:
        """Reads the headers of segments. KeyMissing for the first whose key is not at hand; OSError. A header that is none is
        nothing to this, nor is a segment that was dropped meanwhile."""
        for path in paths:
            try:
                with path.open("rb") as file:
                    header = wal.decode_segment_header(file.read(wal.SEGMENT_HEADER_BYTES))
            except FileNotFoundError:
                continue
            if header is not None:
                self._refuse_unknown(path, header)

    def _refuse_unknown(self, path: Path, header: wal.SegmentHeader) -> None:
        if header.key_id and (self.keys is None or header.key_id not in self.keys.key_ids):
            raise KeyMissing(path, header.key_id, self.keys)


PLAIN: Final = SegmentKeys(None, False)
