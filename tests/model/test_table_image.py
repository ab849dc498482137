"""An image of the table, taken while it changes: loaded, it is the moment it began, and the changes since lead on to now."""

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.model import test_table_history as history
from tests.model.table_model import TableModel
from tests.model.table_pair import BUDGET, TablePair, hash_of, id_of
from tokmesh._core.image import UNTAKEN_MAX
from tokmesh._core.loader import Loader
from tokmesh._core.table import Outcome, Table
from tokmesh._core.views import Status

IDS = 300
BEFORE = 3_000
SOFT = ("last_active", "last_access_ip", "last_access_ua")


class Notebook(TablePair):
    """Notes what was asked of the table, as the log does: the changes with their times."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[Callable[[Table], object]] = []
        self.table = Noting(self.table, self.notes)  # type: ignore[assignment]


class Noting:
    """A table that notes the changes asked of it."""

    def __init__(self, table: Table, notes: list[Callable[[Table], object]]) -> None:
        self._table = table
        self._notes = notes

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._table, name)
        if name not in ("insert", "renew", "update", "rotate", "revoke", "touch", "check", "advance"):
            return method

        def noting(*args: Any) -> Any:
            self._notes.append(lambda table: getattr(table, name)(*args))
            return method(*args)

        return noting


def loaded_from(table: Table, images: list[bytes], now_ms: int, hints: tuple[int, int, int] = (0, 0, 0)) -> Table:
    fresh = Table(tombstone_ttl_ms=30_000, entries_max=1 << 20, arena_bytes_max=1 << 30)
    sessions, users, devices = hints
    loader = Loader(fresh, time_ms=now_ms, sessions=sessions, users=users, devices=devices)
    for images_of_a_step in images:
        loader.load(images_of_a_step)
    return fresh


def check_same(table: Table, model: TableModel, now_ms: int) -> None:
    """Everything but the order of lists, which no record depends on."""
    pair = TablePair()
    pair.table, pair.model, pair.now_ms = table, model, now_ms
    for number in range(IDS):
        pair.check_session(number)
    for token in range(3 * IDS):
        pair.check_token(token)
    pair.check_all()
    for user in range(IDS):
        entries = table.user_entries(f"user{user}")
        assert {table.session(entry).id for entry in entries} == set(model.newest_first("user_id", f"user{user}"))
        entries = table.user_entries(f"user{user}", expired=True)
        assert {table.session(entry).id for entry in entries} == set(model.newest_first("user_id", f"user{user}", Status.EXPIRED))


@pytest.mark.parametrize("seed", range(8))
def test_an_image_and_the_changes_since_are_the_table(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "IDS", IDS)
    source = random.Random(seed)
    pair = Notebook()
    for _ in range(BEFORE):
        history.step(pair, source)
    pair.pass_time(0)
    pair.notes.clear()
    then_ms, then = pair.now_ms, copy.deepcopy(pair.model)
    hints = pair.table.begin_image()
    images, done = [], False
    while not done:
        for _ in range(source.randrange(12)):
            history.step(pair, source)
        gathered, done = pair.table.image.step(source.randrange(1, 9))
        images.append(gathered)
    table = loaded_from(pair.table._table, images, then_ms, hints if seed % 2 else (0, 0, 0))  # type: ignore[attr-defined]
    check_moment(table, then, then_ms)
    for note in pair.notes:
        note(table)
    pair.pass_time(1_000)
    while table.advance(pair.now_ms, BUDGET):
        pass
    check_same(table, pair.model, pair.now_ms)
    pair.pass_time(24 * 3_600_000)
    while table.advance(pair.now_ms, BUDGET):
        pass
    assert table.stats()["entries_used"] == table.stats()["interned_strings"] == 0, "nothing is left behind"


def check_moment(table: Table, then: TableModel, then_ms: int) -> None:
    """What lived at the moment is there as it was, but for soft state; nothing else is."""
    for number in range(IDS):
        session, entry = then.sessions.get(id_of(number)), table.find(id_of(number))
        if session is None:
            assert entry == -1
            continue
        view, expected = table.session(entry)._asdict(), session.view()._asdict()
        assert {**view, **dict.fromkeys(SOFT)} == {**expected, **dict.fromkeys(SOFT)}
        assert view["last_active"] >= expected["last_active"]
        assert (table.status(entry, then_ms) == Status.REVOKED) == (session.state == Status.REVOKED)
    for token in range(3 * IDS):
        verdict, session = then.verdict(hash_of(token), then_ms)
        assert table.find_token(hash_of(token), then_ms)[0] == verdict
        if session is not None:
            assert table.find_token(hash_of(token), then_ms)[1] == table.find(session.id)


def test_an_image_that_nobody_takes_fails_and_the_table_goes_on() -> None:
    pair = TablePair()
    data = b'{"k":"%s"}' % (b"x" * 4_000)
    for number in range(1 + UNTAKEN_MAX // 4_000):
        pair.table.insert(id_of(number), hash_of(number), "u", "", "", "", "", pair.now_ms, pair.now_ms + 60_000, 0, data)
    pair.table.begin_image()
    for number in range(1 + UNTAKEN_MAX // 4_000):
        assert pair.table.renew(id_of(number), pair.now_ms + 70_000, pair.now_ms) == Outcome.DONE
    with pytest.raises(MemoryError, match="not taken fast enough"):
        pair.table.image.step(1)
    assert not pair.table.image.active
    pair.table.begin_image()
    assert pair.table.image.step(1)[1] is False
    pair.table.image.abandon()
    assert pair.table.check(hash_of(0), pair.now_ms)[0] == 0


def some_images() -> bytes:
    pair = TablePair()
    pair.insert(1, 1, "user", "device", "192.0.2.1", "agent", 60_000, 30, b'{"a":"b"}')
    pair.rotate(1, 2, 20_000)
    pair.rotate(1, 3, 20_000)
    pair.touch(1, 0, "192.0.2.9", "another")
    pair.insert(4, 4, "user", "", "", "", 60_000, 0, b"{}")
    pair.revoke(4)
    pair.table.begin_image()
    images, done = pair.table.image.step(1000)
    assert done and pair.table.image.count == 3  # two sessions, one of them with an alias, and an alias that was ended
    return images


def test_images_that_are_cut_or_too_long_are_refused() -> None:
    images = some_images()
    for size in range(1, len(images)):
        table = Table(tombstone_ttl_ms=1, entries_max=100, arena_bytes_max=1 << 20)
        loader = Loader(table, time_ms=0)
        try:
            loader.load(images[:size])
        except ValueError:
            continue
        assert 0 < loader.count < 3, "cut between two images, which is for the file to tell"


def test_no_changed_bit_of_an_image_reaches_beyond_it() -> None:
    """Under the sanitizers: nothing is read or written outside. Some changes are refused, others are other sessions."""
    images = some_images()
    refused = 0
    for bit in range(len(images) * 8):
        changed = bytearray(images)
        changed[bit // 8] ^= 1 << bit % 8
        table = Table(tombstone_ttl_ms=1, entries_max=100, arena_bytes_max=1 << 20)
        try:
            Loader(table, time_ms=0).load(changed)
        except ValueError:
            refused += 1
            continue
        for entry in table.scan(0, 100)[0]:
            assert table.session_json(entry)
    assert refused > len(images)


def test_a_session_that_is_there_twice_is_refused() -> None:
    images = some_images()
    table = Table(tombstone_ttl_ms=1)
    loader = Loader(table, time_ms=0)
    loader.load(images)
    with pytest.raises(ValueError, match="twice"):
        loader.load(images)


def test_more_than_the_table_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="more sessions than the table holds"):
        Loader(Table(tombstone_ttl_ms=1, entries_max=2), time_ms=0).load(some_images())
    Loader(Table(tombstone_ttl_ms=1, entries_max=4), time_ms=0).load(some_images())


def test_tables_exchange_all_they_have() -> None:
    pair, other = TablePair(), TablePair()
    pair.insert(1, 1, "user", "device", "192.0.2.1", "agent", 60_000, 30, b'{"a":"b"}')
    pair.rotate(1, 2, 20_000)
    other.insert(7, 7, "else", "", "", "", 60_000, 0, b"{}")
    other.touch(7, 0, None, None)
    pair.table.exchange(other.table)
    pair.model, other.model = other.model, pair.model
    for each in (pair, other):
        for number in (1, 7):
            each.check_session(number)
        for token in (1, 2, 7):
            each.check_token(token)
        each.check_all()
        each.drain()
        each.insert(9, 9, "more", "d", "", "", 60_000, 0, b"{}")
        each.pass_time(61_000)
        each.check_all()
