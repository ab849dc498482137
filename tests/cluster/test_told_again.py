"""What a node told when its connection ended, or it was not current any more, the others hear again, on a real NATS server."""

from collections.abc import Iterator

import pytest

from tests.cluster.test_missed_touches import SUBJECTS, Member, found_current, hears_beats_of, now_table, run
from tests.model.table_pair import id_of
from tests.support.nats import NatsCluster
from tests.support.waiting import until
from tests.unit.test_activity import HOUR_MS, last_active, table_with
from tokmesh._core.clock import Clock
from tokmesh.cluster.link import LinkDown
from tokmesh.log.record import SessionsTouched


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server."""
    with NatsCluster(tmp_path_factory.mktemp("nats"), 1) as nats:
        yield nats.urls[0]


@pytest.mark.parametrize("is_behind", [False, True])
@pytest.mark.parametrize("is_sent", [False, True])
def test_what_it_told_at_the_end_of_a_connection_it_tells_again(url: str, is_sent: bool, is_behind: bool) -> None:
    """is_sent: into a connection that was dead already. is_behind: the node is not current meanwhile."""

    async def work(cut: Member, other: Member) -> None:
        await other.link.subscribe(SUBJECTS.touches, other.touches.heard)
        await other.settle()
        await found_current(cut, at_ms=cut.clock.now_ms())
        hears_beats_of(cut, "tmnd-1")
        seen_ms = cut.clock.now_ms() + 5
        cut.table.touch(id_of(1), seen_ms)
        cut.touches.note(SessionsTouched(seen_ms, cut.table.drain_touched(10)))
        dead = cut.link._connection
        assert dead is not None
        if is_sent:
            dead._pending = _Lost()
            await cut.touches.tell()
        dead.abandon()
        if not is_sent:
            with pytest.raises(LinkDown):
                await cut.touches.tell()
        await until(lambda: cut.link.reconnects == 1, "there is another connection")
        if is_behind:
            cut.missed.look(False)
        cut.missed.look(True)
        await until(lambda: last_active(other.table, 1) == seen_ms, "the other has heard of it")
        await until(lambda: not cut.missed.is_behind, "it is not behind")

    run(url, work, now_table(1), now_table(1))


class _Lost(list[bytes]):
    """What is to be written to a connection, and is not."""

    def append(self, _: bytes) -> None: ...


def test_what_was_active_long_before_it_was_cut_off_it_does_not_tell_again(url: str) -> None:
    async def work(cut: Member, other: Member) -> None:
        await other.link.subscribe(SUBJECTS.touches, other.touches.heard)
        await other.settle()
        now_ms = cut.clock.now_ms()
        await found_current(cut, at_ms=now_ms)
        hears_beats_of(cut, "tmnd-1")
        cut.table.touch(id_of(1), now_ms - 60_000)
        cut.table.touch(id_of(2), now_ms)
        cut.link.reconnects += 1
        cut.missed.look(True)
        await until(lambda: last_active(other.table, 2) == now_ms, "the other has heard of it")
        assert last_active(other.table, 1) < now_ms - 60_000

    hour_ago = Clock().now_ms() - HOUR_MS
    tables = [table_with(1, 2, created_at_ms=hour_ago, expires_at_ms=hour_ago + 9 * HOUR_MS) for _ in range(2)]
    run(url, work, *tables)
