"""The domain over a real table and a log of the test's: what the tests of sessions and keys stand on."""

from dataclasses import dataclass, field
from typing import Any

from tests.support.fake_log import FakeLog
from tokmesh._core.clock import Clock
from tokmesh._core.counters import CounterBlock
from tokmesh._core.session_view import SessionView
from tokmesh._core.table import Table
from tokmesh.errors import ApiError
from tokmesh.ids import parse_session_id
from tokmesh.keyring import KeyRing
from tokmesh.log.interface import Reached
from tokmesh.sessions import Created, Sessions
from tokmesh.store import Store

T0 = 1_734_567_890_000
TOMBSTONE_TTL_MS = 600_000


@dataclass
class TtlSettings:
    default_ms: int = 7_200_000
    max_ms: int = 2_592_000_000


@dataclass
class QuotaSettings:
    max_per_user: int = 50
    policy: str = "reject"


@dataclass
class SessionSettings:
    ttl: TtlSettings = field(default_factory=TtlSettings)
    quota: QuotaSettings = field(default_factory=QuotaSettings)


class Domain:
    """Table, store, log, sessions, on a clock that starts at T0 and is moved by `clock.shift`. is_alone: else of a cluster, whose
    nodes all have at once what this one has."""

    def __init__(self, *, quota: int = 50, policy: str = "reject", immediate: bool = True, is_alone: bool = True) -> None:
        self.clock = Clock(T0)
        self.table = Table(tombstone_ttl_ms=TOMBSTONE_TTL_MS, seed=bytes(16))
        self.keyring = KeyRing()
        self.store = Store(self.table, self.keyring)
        self.log = FakeLog(self.store, immediate=immediate)
        self.counters = CounterBlock()
        self.settings = SessionSettings(quota=QuotaSettings(quota, policy))
        spread = None if is_alone else _spread
        self.sessions = Sessions(self.table, self.log, self.clock, self.settings, self.counters, spread)

    def view(self, session_id: bytes) -> SessionView:
        """A session of the table, as values."""
        return self.table.session(self.table.find(session_id))


async def _spread() -> Reached:
    return Reached([], [], 0)


def id16(created: Created) -> bytes:
    """The 16-byte id of a created session."""
    session_id = parse_session_id(created.session_id)
    assert session_id is not None
    return session_id


def code_of(result: Any) -> str:
    """ "OK" for a result, the code for an ApiError; anything else raised is raised again."""
    if isinstance(result, ApiError):
        return result.code
    if isinstance(result, BaseException):
        raise result
    return "OK"
