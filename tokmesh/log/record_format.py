"""What all records share: the head of their bytes, the base class, the one error of decoding.

Every record starts with kind u8 · format u8 · time_ms i64, little-endian without padding; record.py tells the rest.
"""

import struct
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final

FORMAT: Final = 1
ID_BYTES: Final = 16
HEAD: Final = struct.Struct("<BBq")


class RecordError(ValueError):
    """Bytes that are no record of this format."""


class Record(ABC):
    """What every kind has; equality is by kind and value. The repr shows neither hashes nor texts.

    SessionCreated has it too, and is a class of the core (_core/created.pyx): a create makes one and reads all of it.
    """

    __slots__ = ("time_ms",)
    KIND: ClassVar[int]
    reserved: ClassVar[bool] = False
    time_ms: int

    @abstractmethod
    def encode(self) -> bytes:
        """The record's bytes, as record.py tells."""

    def values(self) -> tuple[Any, ...]:
        """Every field, `time_ms` first, then in the order of the class's slots."""
        return (self.time_ms, *(getattr(self, name) for name in type(self).__slots__))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and type(other) is type(self) and self.values() == other.values()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(time_ms={self.time_ms})"


def require(condition: bool) -> None:
    """Raises RecordError unless `condition` holds."""
    if not condition:
        raise RecordError("a field is outside its bounds")
