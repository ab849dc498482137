"""Who loads sessions ends none of them for its idle limit before the members have told who was active."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.cluster.test_missed_touches import Member, found_current, hears_beats_of, now_table, run
from tests.model.table_pair import id_of
from tests.support.nats import NatsCluster
from tests.support.waiting import until
from tests.unit.test_activity import HOUR_MS, last_active, table_with
from tokmesh._core.clock import Clock
from tokmesh.cluster.missed_touches import HOLD_MS


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server."""
    with NatsCluster(tmp_path_factory.mktemp("nats"), 1) as nats:
        yield nats.urls[0]


def test_none_ends_for_its_idle_limit_while_sessions_are_loaded_and_until_all_have_told_who_was_active(url: str) -> None:
    async def work(loading: Member, other: Member) -> None:
        await found_current(loading, at_ms=loading.clock.now_ms())
        hears_beats_of(loading, "tmnd-1")
        loading.is_loading = True
        loading.missed.look(True)
        now_ms = loading.clock.now_ms()
        loading.table.advance(now_ms, 1000)
        assert loading.table.find(id_of(1)) >= 0 and not loading.missed.is_behind
        other.table.touch(id_of(1), now_ms)
        await loading.missed.hear_all()
        assert last_active(loading.table, 1) == now_ms and loading.table.idle_ends_from_ms > now_ms
        loading.missed._reconnects -= 1  # as after another connection
        loading.missed.look(True)
        await until(lambda: loading.missed._reconnects == loading.link.reconnects, "it has asked for what it missed")
        assert loading.table.idle_ends_from_ms > now_ms
        loading.is_loading = False
        loading.missed.look(True)
        assert loading.table.idle_ends_from_ms == 0
        loading.table.advance(now_ms + HOLD_MS + 2000, 1000)
        assert [loading.table.find(id_of(number)) >= 0 for number in (1, 2)] == [True, False]

    days_ago = Clock().now_ms() - 48 * HOUR_MS
    tables = [table_with(1, 2, created_at_ms=days_ago, expires_at_ms=days_ago + 96 * HOUR_MS) for _ in range(2)]
    run(url, work, *tables)


def test_who_loads_has_not_heard_who_was_active_without_a_majority_or_when_it_was_away_meanwhile(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(loading: Member, other: Member) -> None:
        asked, ask = 0, loading.missed._ask

        async def ask_once_while_away(node_id: str, since_ms: int) -> int:
            nonlocal asked
            asked += 1
            if asked == 1:
                loading.missed.look(False)
            return await ask(node_id, since_ms)

        monkeypatch.setattr(loading.missed, "_ask", ask_once_while_away)
        loading.quorum.set_members(("tmnd-0", "tmnd-1", "tmnd-2"), 0)
        hearing = asyncio.ensure_future(loading.missed.hear_all())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(hearing), 0.5)
        assert asked == 0
        hears_beats_of(loading, "tmnd-1")
        await hearing
        assert asked == 2

    run(url, work, now_table(1), now_table(1))
