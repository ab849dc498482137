"""Listing sessions: filter, sort, page, cursor, with a bound on the work of one request.

Only live sessions are listed. With a user or a device the candidates come from the table's index; else the table is read in
windows of 16,384 entries, in the order of entries, which stay put for a session's life.

- Within a window all matches are sorted. When one window holds the whole table (or the user's or device's sessions), as it does
  up to 16,384 sessions, the order is that of all sessions and `total_items` is their number. A larger table is sorted window
  by window, and `total_items` counts the matches of this window only: an index for every order would cost each create.
- `page` counts within the first window. `next_cursor` goes on from the last item, through all windows: following it shows every
  session that lives throughout exactly once, as long as what is sorted by does not change meanwhile. A page may then have
  fewer items than `size`, even none: the end is `next_cursor` null.

A cursor is opaque: base64url of JSON [first entry of the window, sort field, descending, last value, last id]. It holds nothing
that its receiver was not shown, and belongs to the same filter; the order is checked.

A long window is read in steps of 512 entries with the loop free in between; what changed meanwhile is left out at the end.
"""

import asyncio
import heapq
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, Final, NamedTuple

import orjson

from tokmesh._core.clock import Clock
from tokmesh._core.session_view import SessionView
from tokmesh._core.table import Status, Table
from tokmesh.errors import ApiError
from tokmesh.ids import ALL_SHARDS, format_key_id, shard_of
from tokmesh.sessions.rules import check_device_id, check_user_id

WINDOW_ENTRIES: Final = 16_384
STEP_ENTRIES: Final = 512
CURSOR_CHARS_MAX: Final = 2048
SORT_FIELDS: Final = ("created_at", "last_active", "expires_at", "user_id", "device_id")
TEXT_FIELDS: Final = frozenset(("user_id", "device_id"))
_LIVE: Final = int(Status.LIVE)

Key = tuple[int | str, bytes]
Network = IPv4Network | IPv6Network


class SessionFilter(NamedTuple):
    """What to list. None: any. Times are Unix ms; ranges include their ends; `active_after` is the least last_active.

    key_id: 16 bytes. page counts from 1, and is 1 with a cursor, which takes its place; size: of it, as bounded by who asks.
    """

    user_id: str | None = None
    device_id: str | None = None
    key_id: bytes | None = None
    ip_network: Network | None = None
    time_range_start_ms: int | None = None
    time_range_end_ms: int | None = None
    active_after_ms: int | None = None
    sort_by: str = "created_at"
    descending: bool = True
    page: int = 1
    size: int = 20
    cursor: str | None = None


class SessionPage(NamedTuple):
    """Sessions of the page, as JSON; matches of the window; where to go on, or None at the end."""

    items: list[bytes]
    total_items: int
    next_cursor: str | None


class Matches(NamedTuple):
    """keys: the first of those asked for, in order; total: matches of the window; next_window: the first entry of the next one, -1
    where there is none."""

    keys: list[Key]
    total: int
    next_window: int


class SessionQuery:
    """Runs filters over `table`."""

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table = table
        self._clock = clock

    async def run(self, wanted: SessionFilter) -> SessionPage:
        """One page. Raises TM-SESS-4001 (what is no user or device id), TM-ARG-1001 (a bad cursor or order), TM-ARG-1003 (a cursor
        of another order)."""
        check_filter(wanted)
        window, after = (0, None) if wanted.cursor is None else decode_cursor(wanted.cursor, wanted)
        if not is_window(window):
            raise bad_cursor()
        skipped = (wanted.page - 1) * wanted.size
        # One more than the page tells whether another follows.
        best, total, next_window = await self.matches(wanted, window, after, skipped + wanted.size + 1)
        page = best[skipped : skipped + wanted.size]
        cursor = None
        if len(best) > skipped + wanted.size:
            cursor = encode_cursor(window, page[-1], wanted)
        elif next_window >= 0:
            cursor = encode_cursor(next_window, None, wanted)
        items = [item for item in self.show([session_id for _, session_id in page]) if item]
        return SessionPage(items, total, cursor)

    async def matches(
        self, wanted: SessionFilter, window: int, after: Key | None, count: int, shards: int = ALL_SHARDS
    ) -> Matches:
        """The first `count` keys after `after`: of the sessions of those shards (bits) that pass, in the window that begins so."""
        entries, next_window = self._candidates(wanted, window)
        keys = await self._matches(entries, wanted)
        if shards != ALL_SHARDS:
            keys = [key for key in keys if shards >> shard_of(key[1]) & 1]
        shown = keys if after is None else _after(keys, after, wanted.descending)
        best = (heapq.nlargest if wanted.descending else heapq.nsmallest)(count, shown)
        return Matches(best, len(keys), next_window)

    def show(self, ids: Sequence[bytes]) -> list[bytes]:
        """Each of the sessions as JSON, b"" for one that does not live any more."""
        now_ms = self._clock.now_ms()
        items = []
        for entry in map(self._table.find, ids):
            is_live = entry >= 0 and self._table.status(entry, now_ms) == _LIVE
            items.append(self._table.session_json(entry) if is_live else b"")
        return items

    def _candidates(self, wanted: SessionFilter, window: int) -> tuple[list[int], int]:
        """Entries to look at, at most WINDOW_ENTRIES, and the first entry of the next window (-1: there is none)."""
        indexed: list[int] | None = None
        if wanted.user_id is not None:
            indexed = self._table.user_entries(wanted.user_id)
        elif wanted.device_id:
            indexed = self._table.device_entries(wanted.device_id)
        if indexed is not None and len(indexed) <= WINDOW_ENTRIES:
            return indexed, -1
        return self._table.scan(window, WINDOW_ENTRIES)

    async def _matches(self, entries: list[int], wanted: SessionFilter) -> list[Key]:
        """(sort value, id) of the live sessions among `entries` that pass the filter."""
        table, passes = self._table, _predicate(wanted)
        keys: list[Key] = []
        for start in range(0, len(entries), STEP_ENTRIES):
            if start:
                await _loop_turn()
            now_ms = self._clock.now_ms()
            for entry in entries[start : start + STEP_ENTRIES]:
                try:
                    view = table.session(entry) if table.status(entry, now_ms) == _LIVE else None
                except IndexError:  # forgotten since the turn before, or a restore has put another table in place
                    continue
                if view is not None and passes(view):
                    keys.append((getattr(view, wanted.sort_by), view.id))
        return keys


def _loop_turn() -> "asyncio.Future[None]":
    """A future that the loop resolves in its next turn: handlers run outside Tasks, where a bare yield means nothing."""
    loop = asyncio.get_running_loop()
    turn: asyncio.Future[None] = loop.create_future()
    loop.call_soon(_resolve, turn)
    return turn


def _resolve(turn: "asyncio.Future[None]") -> None:
    if not turn.done():
        turn.set_result(None)


def check_filter(wanted: SessionFilter) -> None:
    """Raises what SessionQuery.run does of the fields."""
    if wanted.user_id is not None:
        check_user_id(wanted.user_id)
    if wanted.device_id is not None:
        check_device_id(wanted.device_id)
    if wanted.sort_by not in SORT_FIELDS:
        raise ApiError("TM-ARG-1001", {"field": "sort_by", "allowed": list(SORT_FIELDS)})


def _predicate(wanted: SessionFilter) -> Callable[[SessionView], bool]:
    """A function that tells whether a session passes; it has the given conditions only."""
    tests: list[Callable[[SessionView], bool]] = []
    user_id, device_id, network = wanted.user_id, wanted.device_id, wanted.ip_network
    start_ms, end_ms, active_ms = wanted.time_range_start_ms, wanted.time_range_end_ms, wanted.active_after_ms
    if user_id is not None:
        tests.append(lambda view: view.user_id == user_id)
    if device_id is not None:
        tests.append(lambda view: view.device_id == device_id)
    if wanted.key_id is not None:
        created_by = format_key_id(wanted.key_id)
        tests.append(lambda view: view.created_by == created_by)
    if start_ms is not None:
        tests.append(lambda view: view.created_at >= start_ms)
    if end_ms is not None:
        tests.append(lambda view: view.created_at <= end_ms)
    if active_ms is not None:
        tests.append(lambda view: view.last_active >= active_ms)
    if network is not None:
        if network.prefixlen == network.max_prefixlen:
            address = str(network.network_address)
            tests.append(lambda view: view.ip_address == address)
        else:
            tests.append(lambda view: bool(view.ip_address) and ip_address(view.ip_address) in network)
    return lambda view: all(test(view) for test in tests)


def _after(keys: Iterable[Key], last: Key, descending: bool) -> list[Key]:
    return [key for key in keys if (key < last if descending else key > last)]


def encode_cursor(start: Any, after: Key | None, wanted: SessionFilter) -> str:
    """A cursor. start: where to go on, as JSON can tell it; after: the last key that was shown of what is there, if any."""
    value, session_id = (None, None) if after is None else (after[0], after[1].hex())
    content = orjson.dumps([start, wanted.sort_by, wanted.descending, value, session_id])
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def decode_cursor(text: str, wanted: SessionFilter, chars_max: int = CURSOR_CHARS_MAX) -> tuple[Any, Key | None]:
    """Start and last key; what the start is, is not checked. Raises TM-ARG-1001, TM-ARG-1003."""
    refusal = bad_cursor()
    if len(text) > chars_max:
        raise refusal
    try:
        content: Any = orjson.loads(urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)))
        start, sort_by, descending, value, session_id = content
        after_id = None if session_id is None else bytes.fromhex(session_id)
    except (UnicodeEncodeError, Base64Error, ValueError, TypeError):
        raise refusal from None
    value_type = str if wanted.sort_by in TEXT_FIELDS else int
    if sort_by != wanted.sort_by or descending is not wanted.descending:
        raise ApiError("TM-ARG-1003", {"fields": ["cursor", "sort_by", "sort_order"]})
    if after_id is None and value is None:
        return start, None
    if after_id is None or len(after_id) != 16 or type(value) is not value_type:
        raise refusal
    return start, (value, after_id)


def is_window(value: Any) -> bool:
    """Whether it can be the first entry of a window."""
    return type(value) is int and 0 <= value < 2**32


def bad_cursor() -> ApiError:
    """It is none, or none of this list."""
    return ApiError("TM-ARG-1001", {"field": "cursor"})
