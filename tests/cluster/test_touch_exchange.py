"""What a node remembers of the touches that others told, so that it does not tell them again."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tests.model.table_pair import id_of
from tests.unit.test_activity import NOW_MS, last_active, table_with
from tokmesh._core.table import Table
from tokmesh.cluster import touch_exchange as module
from tokmesh.cluster.touch_exchange import TouchExchange
from tokmesh.ids import shard_of
from tokmesh.log.record import SessionsTouched


class Exchange:
    """A node's, with what it tells."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.told: list[bytes] = []
        link: Any = SimpleNamespace(publish=self._publish)
        self.touches = TouchExchange(link, "touch", table)

    async def _publish(self, subject: str, payload: bytes) -> None:
        self.told.append(payload)

    def hear(self, *numbers: int, at_ms: int = NOW_MS + 1) -> None:
        record = SessionsTouched(at_ms, [(id_of(number), at_ms, None, None) for number in numbers])
        message: Any = SimpleNamespace(data=record.encode())
        asyncio.run(self.touches.heard(message))

    def flush(self) -> list[bytes]:
        """What it tells of all that was touched."""
        self.touches.note(SessionsTouched(NOW_MS + 2, self.table.drain_touched(1000)))
        asyncio.run(self.touches.tell())
        told, self.told = self.told, []
        return told


def test_a_touch_of_a_revoked_session_takes_no_room_of_those_that_others_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECEIVED_MAX", 2)
    exchange = Exchange(table_with(1, 2, 3))
    exchange.table.revoke(id_of(1), NOW_MS)
    exchange.hear(1, 2, 3)
    assert [last_active(exchange.table, number) for number in (1, 2, 3)] == [NOW_MS, NOW_MS + 1, NOW_MS + 1]
    assert exchange.flush() == []


def test_sessions_that_were_forgotten_before_they_were_drained_take_no_room_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECEIVED_MAX", 1)
    exchange = Exchange(table_with(1, 2))
    exchange.hear(1)
    exchange.table.begin_forgetting(1 << shard_of(id_of(1)))  # as when a shard is left
    exchange.table.forget(1 << 30)
    assert exchange.flush() == []
    exchange.hear(2)
    assert last_active(exchange.table, 2) == NOW_MS + 1
    assert exchange.flush() == []
