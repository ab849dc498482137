"""Listing: every filter, every order, pages, cursors that meet each session once, and the bound on one request's work."""

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import ip_network
from typing import Any, cast

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.domain import Domain, code_of, id16
from tokmesh.errors import ApiError
from tokmesh.ids import format_key_id, parse_key_id, parse_session_id
from tokmesh.sessions import query as session_query
from tokmesh.sessions.query import SORT_FIELDS, SessionFilter, SessionPage

KEYS = [format_key_id(bytes([number]) * 16) for number in range(2)]
ADDRESSES = ["", "10.1.2.3", "10.1.9.9", "192.168.0.1", "2001:db8::1"]


async def fill(domain: Domain, count: int = 40) -> "list[bytes]":
    """Sessions that differ in everything; every seventh is expired, every eleventh revoked. Ids of the live ones."""
    live = []
    for number in range(count):
        created = await domain.sessions.create(
            f"u{number % 5}",
            f"d{number % 3}" if number % 4 else "",
            ADDRESSES[number % len(ADDRESSES)],
            ttl_seconds=1 if number % 7 == 0 else 3600 + number % 6,
            created_by=KEYS[number % 2],
        )
        domain.clock.shift(10)
        if number % 11 == 0:
            await domain.sessions.revoke(id16(created))
        elif number % 7:
            live.append(id16(created))
    domain.clock.shift(2000)
    for session_id in live[::3]:
        await domain.sessions.touch(session_id)
        domain.clock.shift(10)
    return live


def ids_of(domain: Domain, page: SessionPage) -> "list[bytes]":
    return [cast(bytes, parse_session_id(orjson.loads(item)["id"])) for item in page.items]


async def walk(domain: Domain, wanted: SessionFilter) -> "list[bytes]":
    """All ids, following the cursor; bounded, so that a cursor that goes round fails."""
    seen: list[bytes] = []
    for _ in range(1000):
        page = await domain.sessions.list(wanted)
        assert len(page.items) <= wanted.size
        seen += ids_of(domain, page)
        if page.next_cursor is None:
            return seen
        wanted = wanted._replace(cursor=page.next_cursor, page=1)
    raise AssertionError("the cursor does not end")


def run(scenario: Callable[[Domain], Awaitable[None]]) -> None:
    asyncio.run(scenario(Domain(quota=1000)))  # type: ignore[arg-type]


def test_only_live_sessions_are_listed_newest_first() -> None:
    async def scenario(domain: Domain) -> None:
        live = await fill(domain)
        page = await domain.sessions.list(SessionFilter(size=100))
        assert ids_of(domain, page) == live[::-1]
        assert (page.total_items, page.next_cursor) == (len(live), None)

    run(scenario)


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("sort_by", SORT_FIELDS)
def test_orders_pages_and_cursors_agree(sort_by: str, descending: bool) -> None:
    async def scenario(domain: Domain) -> None:
        live = await fill(domain)

        def key(session_id: bytes) -> tuple[Any, bytes]:
            return getattr(domain.view(session_id), sort_by), session_id

        expected = sorted(live, key=key, reverse=descending)
        wanted = SessionFilter(sort_by=sort_by, descending=descending, size=7)
        pages = [await domain.sessions.list(wanted._replace(page=number)) for number in range(1, 7)]
        assert [one for page in pages for one in ids_of(domain, page)] == expected
        assert {page.total_items for page in pages} == {len(live)}
        assert await walk(domain, wanted) == expected
        assert await walk(domain, wanted._replace(page=3)) == expected[14:]
        beyond = await domain.sessions.list(wanted._replace(page=1000))
        assert (beyond.items, beyond.next_cursor) == ([], None)

    run(scenario)


@pytest.mark.parametrize(
    "wanted",
    [
        SessionFilter(user_id="u1"),
        SessionFilter(user_id="nobody"),
        SessionFilter(device_id="d1"),
        SessionFilter(device_id=""),
        SessionFilter(user_id="u1", device_id="d2"),
        SessionFilter(key_id=parse_key_id(KEYS[1])),
        SessionFilter(ip_network=ip_network("10.1.2.3")),
        SessionFilter(ip_network=ip_network("10.1.0.0/16")),
        SessionFilter(ip_network=ip_network("10.1.2.9/24", strict=False)),
        SessionFilter(ip_network=ip_network("2001:db8::/32")),
        SessionFilter(ip_network=ip_network("2001:db8::1/128")),
        SessionFilter(user_id="u2", key_id=parse_key_id(KEYS[0]), ip_network=ip_network("10.0.0.0/8")),
    ],
)
def test_filters(wanted: SessionFilter) -> None:
    async def scenario(domain: Domain) -> None:
        live = await fill(domain)
        expected = []
        for session_id in live:
            view = domain.view(session_id)
            address = ip_network(view.ip_address) if view.ip_address else None
            if (
                wanted.user_id in (None, view.user_id)
                and wanted.device_id in (None, view.device_id)
                and (wanted.key_id is None or format_key_id(wanted.key_id) == view.created_by)
                and (
                    wanted.ip_network is None
                    or (
                        address is not None
                        and address.version == wanted.ip_network.version
                        and address.subnet_of(wanted.ip_network)  # type: ignore[arg-type]
                    )
                )
            ):
                expected.append(session_id)
        page = await domain.sessions.list(wanted._replace(size=100, descending=False))
        assert ids_of(domain, page) == expected
        assert page.total_items == len(expected)

    run(scenario)


def test_time_ranges_include_their_ends() -> None:
    async def scenario(domain: Domain) -> None:
        live = await fill(domain)
        views = [domain.view(session_id) for session_id in live]
        start, end = views[5].created_at, views[20].created_at
        page = await domain.sessions.list(SessionFilter(time_range_start_ms=start, time_range_end_ms=end, size=100))
        assert ids_of(domain, page) == [view.id for view in views[20:4:-1]]
        active = sorted(view.last_active for view in views)[-3]
        page = await domain.sessions.list(SessionFilter(active_after_ms=active, size=100))
        assert len(page.items) == 3

    run(scenario)


@pytest.mark.parametrize(("window", "step"), [(1, 1), (4, 3), (16, 5), (1000, 7)])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_table_larger_than_a_window_is_walked_exactly_once(
    monkeypatch: pytest.MonkeyPatch, window: int, step: int, size: int
) -> None:
    monkeypatch.setattr(session_query, "WINDOW_ENTRIES", window)
    monkeypatch.setattr(session_query, "STEP_ENTRIES", step)

    async def scenario(domain: Domain) -> None:
        live = await fill(domain)
        for wanted in (SessionFilter(size=size), SessionFilter(size=size, sort_by="user_id", descending=False)):
            assert sorted(await walk(domain, wanted)) == sorted(live)
            first = await domain.sessions.list(wanted)
            assert len(first.items) <= first.total_items <= window
        of_user = [one for one in live if domain.view(one).user_id == "u3"]
        assert sorted(await walk(domain, SessionFilter(size=size, user_id="u3"))) == sorted(of_user)

    run(scenario)


def test_a_walk_meets_what_lives_throughout_whatever_comes_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_query, "WINDOW_ENTRIES", 8)

    async def scenario(domain: Domain) -> None:
        live = await fill(domain)
        wanted, seen, gone = SessionFilter(size=3), [], set()
        for number in range(1000):
            page = await domain.sessions.list(wanted)
            seen += ids_of(domain, page)
            victim = live[(number * 7) % len(live)]
            await domain.sessions.revoke(victim)
            gone.add(victim)
            await domain.sessions.create("new")
            if page.next_cursor is None or number > 100:
                break
            wanted = wanted._replace(cursor=page.next_cursor)
        assert len(seen) == len(set(seen))
        assert set(live) - gone <= set(seen)

    run(scenario)


def test_what_ends_while_a_long_window_is_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_query, "STEP_ENTRIES", 1)

    async def scenario(domain: Domain) -> None:
        live = await fill(domain)
        listing = asyncio.ensure_future(domain.sessions.list(SessionFilter(size=100)))
        for _ in range(10):
            await asyncio.sleep(0)
        for session_id in live:
            await domain.sessions.revoke(session_id)
        assert not listing.done()
        assert (await listing).items == []

    run(scenario)


def test_a_list_under_way_while_a_restore_replaces_the_table_ends_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_query, "STEP_ENTRIES", 5)

    async def play() -> None:
        domain, other = Domain(), Domain()
        await fill(domain)
        (only,) = [await other.sessions.create("new")]
        listing = asyncio.ensure_future(domain.sessions.list(SessionFilter()))
        await asyncio.sleep(0)
        domain.table.exchange(other.table)
        page = await listing
        assert set(ids_of(domain, page)) <= {id16(only)}

    asyncio.run(play())


def test_bad_orders_and_cursors_are_refused() -> None:
    async def scenario(domain: Domain) -> None:
        await fill(domain)

        async def refusal(**fields: Any) -> str:
            with pytest.raises(ApiError) as caught:
                await domain.sessions.list(SessionFilter(**fields))
            return code_of(caught.value)

        for bad in ("id", "data"):
            assert await refusal(sort_by=bad) == "TM-ARG-1001"
        cursor = (await domain.sessions.list(SessionFilter(size=2))).next_cursor
        assert cursor is not None
        assert await refusal(cursor=cursor, sort_by="user_id") == "TM-ARG-1003"
        assert await refusal(cursor=cursor, descending=False) == "TM-ARG-1003"
        for junk in ("", "x", "!!!!", cursor[:-4], cursor + "AAAA", "ü", "A" * 3000, "bnVsbA", "WzEsMiwzXQ", "W10"):
            assert await refusal(cursor=junk) == "TM-ARG-1001"

    run(scenario)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=60), st.text("ABCabc019-_", max_size=80)))
def test_any_cursor_is_taken_or_refused(text: str) -> None:
    async def scenario(domain: Domain) -> None:
        result = await asyncio.gather(domain.sessions.list(SessionFilter(cursor=text)), return_exceptions=True)
        assert code_of(result[0]) in ("OK", "TM-ARG-1001", "TM-ARG-1003")

    run(scenario)
