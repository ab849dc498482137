from collections.abc import Sequence
from typing import Any, ClassVar

IP_ADDRESS_BYTES_MAX: int
USER_AGENT_BYTES_MAX: int
DATA_BYTES_MAX: int

class SessionCreated:
    KIND: ClassVar[int]
    reserved: ClassVar[bool]
    __slots__: ClassVar[tuple[str, ...]]
    time_ms: int
    session_id: bytes
    token_hash: bytes
    user_id: str
    device_id: str
    ip_address: str
    user_agent: str
    created_by: str
    expires_at_ms: int
    idle_seconds: int
    data: bytes
    evicts: tuple[bytes, ...]
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __init__(
        self,
        time_ms: int,
        session_id: bytes,
        token_hash: bytes,
        user_id: str,
        device_id: str,
        ip_address: str,
        user_agent: str,
        created_by: str,
        expires_at_ms: int,
        idle_seconds: int,
        data: bytes,
        evicts: Sequence[bytes] = (),
    ) -> None: ...
    def values(self) -> tuple[Any, ...]: ...
    def encode(self) -> bytes: ...

def split_texts(
    payload: bytes, lengths_at: int, texts_at: int
) -> tuple[str, str, str, str, str, bytes, int] | None: ...
