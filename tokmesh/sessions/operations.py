"""What can be done with sessions, for those who need not know where these are: on this node (`Sessions`), or on several.

Errors are ApiError: those of `Sessions`, and TM-CLST-5030 where nodes hold only a part each.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tokmesh.log.interface import Reached
from tokmesh.sessions.query import SessionFilter, SessionPage

Judged = tuple[int, bytes]  # a table Verdict, and the session's JSON, b"" unless it is VALID


@dataclass(slots=True)
class Created:
    """A new session: `tmss-…`, the token (shown once), its absolute end."""

    session_id: str
    token: str
    expires_at: int


class Rotated(NamedTuple):
    """A session's new token (shown once), the session's absolute end, the end of the old token's grace."""

    token: str
    expires_at: int
    old_valid_until: int


class Revoked(NamedTuple):
    """How many sessions ended; where that has come to, if it was waited for and there is more than this node."""

    ended: int
    reached: Reached | None


class SessionOperations(Protocol):
    """See `Sessions`, which says of each what it does."""

    def create(
        self,
        user_id: str,
        device_id: str = "",
        ip_address: str = "",
        user_agent: str = "",
        ttl_seconds: int | None = None,
        idle_seconds: int | None = None,
        data: dict[str, str] | None = None,
        token: str | None = None,
        *,
        created_by: str = "",
    ) -> Awaitable[Created]: ...
    def get(self, session_id: bytes) -> Awaitable[bytes]: ...
    def touch(
        self, session_id: bytes, ip_address: str | None = None, user_agent: str | None = None
    ) -> Awaitable[bytes]: ...
    def verdicts(self, hashes: Sequence[bytes], touch: bool) -> Awaitable[list[Judged]]: ...
    def renew(self, session_id: bytes, ttl_seconds: int) -> Awaitable[int]: ...
    def update(self, session_id: bytes, data: dict[str, str], if_version: int | None = None) -> Awaitable[int]: ...
    def revoke(self, session_id: bytes, sync: bool = False) -> Awaitable[Revoked]: ...
    def revoke_user(self, user_id: str, except_id: bytes | None = None, sync: bool = False) -> Awaitable[Revoked]: ...
    def rotate(self, token: str, grace_seconds: int = 0) -> Awaitable[Rotated]: ...
    def list(self, session_filter: SessionFilter) -> Awaitable[SessionPage]: ...
