from enum import IntEnum

from tokmesh._core.begins import Begins
from tokmesh._core.begins import Outcome as Outcome
from tokmesh._core.created import SessionCreated
from tokmesh._core.session_view import SessionView as SessionView
from tokmesh._core.views import Status as Status

SESSION_JSON_BYTES_MAX: int

class Verdict(IntEnum):
    VERDICT_VALID = 0
    VERDICT_UNKNOWN = 1
    VERDICT_EXPIRED = 2
    VERDICT_REVOKED = 3
    VERDICT_BUSY = 4

class Table(Begins):
    def begin(self, record: SessionCreated) -> int: ...
    def insert(
        self,
        session_id: bytes,
        token_hash: bytes,
        user_id: str,
        device_id: str,
        ip_address: str,
        user_agent: str,
        created_by: str,
        created_at_ms: int,
        expires_at_ms: int,
        idle_seconds: int,
        data: bytes,
    ) -> int: ...
    def renew(self, session_id: bytes, expires_at_ms: int, time_ms: int) -> int: ...
    def update(self, session_id: bytes, data: bytes, time_ms: int) -> int: ...
    def rotate(self, session_id: bytes, new_hash: bytes, old_valid_until_ms: int, time_ms: int) -> int: ...
    def revoke(self, session_id: bytes, time_ms: int) -> int: ...
    def touch(
        self, session_id: bytes, last_active_ms: int, ip_address: str | None = None, user_agent: str | None = None
    ) -> int: ...
    def set_version(self, session_id: bytes, version: int) -> int: ...
    def drain_touched(self, limit: int) -> list[tuple[bytes, int, str | None, str | None]]: ...
    def advance(self, now_ms: int, budget: int) -> int: ...
    def begin_image(self) -> tuple[int, int, int]: ...
    def exchange(self, other: Table) -> None: ...
    def check(self, token_hash: bytes, now_ms: int, touch_ms: int = 0) -> tuple[int, bytes]: ...
