"""Listing sessions that several nodes hold: each lists its part, and the parts are merged in order.

As on one node (sessions/query.py), a table of more than a window is read window by window: a page is merged from one window of each
node, and `total_items` is the sum of their matches. When all have shown theirs, each goes on to its next one. Entries are of one
node's table, so such a list belongs to the nodes with which it began, which its cursor names: should one of them not hold its part
any more, the cursor is refused, and the list begins anew. A list of one user's or one device's sessions needs no windows; its
cursor is the last key that was shown, and good wherever the sessions are.

A cursor is base64url of JSON [null, or for each node its id, its shards as a number and the first entry of its window; sort field,
descending, last value, last id].
"""

import asyncio
from typing import Any, Final, NamedTuple

from tokmesh.cluster.asking import READ_S, Asking, Caller, Placement, cover_of
from tokmesh.cluster.question import KEYS_MAX, Answer, Operation
from tokmesh.errors import ApiError
from tokmesh.ids import ALL_SHARDS, is_node_id, shards_in
from tokmesh.sessions.query import (
    Key,
    Matches,
    SessionFilter,
    SessionPage,
    SessionQuery,
    bad_cursor,
    check_filter,
    decode_cursor,
    encode_cursor,
    is_window,
)

LIST_S: Final = 5.0  # to find what is on a page: a window of a large table takes a busy node a while
CURSOR_CHARS_MAX: Final = 8192
MOVED: Final = "moved"


class Part(NamedTuple):
    """What a node lists: the sessions of those shards (bits), in the window that begins at that entry."""

    node_id: str
    shards: int
    window: int


class PlacedList:
    """query: of this node's sessions."""

    def __init__(self, query: SessionQuery, placement: Placement, asking: Asking, node_id: str) -> None:
        self._query = query
        self._placement = placement
        self._asking = asking
        self._node_id = node_id

    async def run(self, wanted: SessionFilter) -> SessionPage:
        """As SessionQuery's. Raises TM-CLST-5030, and TM-ARG-1001 with reason "moved", besides."""
        check_filter(wanted)
        named, after = (None, None) if wanted.cursor is None else _decode(wanted.cursor, wanted)
        parts = named or [Part(node_id, shards, 0) for node_id, shards in cover_of(self._placement).items()]
        skipped = (wanted.page - 1) * wanted.size
        count = skipped + wanted.size + 1  # one more tells whether another page follows
        caller = self._asking.caller()
        listing = [self._part(part, wanted, after, count, caller, may_move=named is None) for part in parts]
        listed = [each for found in await asyncio.gather(*listing) for each in found]
        keys = sorted((key for _, matches in listed for key in matches.keys), reverse=wanted.descending)
        page = keys[skipped : skipped + wanted.size]
        of_windows = [part for part, matches in listed if matches.next_window >= 0 or part.window]
        is_indexed = wanted.user_id is not None or bool(wanted.device_id)
        if of_windows and named is None and after is not None:
            raise _moved()  # what it was that was shown so far is not known any more
        cursor = None
        if len(keys) > skipped + wanted.size:
            start = None if is_indexed and not of_windows else [tuple(part) for part, _ in listed]
            cursor = encode_cursor(start, page[-1], wanted)
        elif following := [(*part[:2], each.next_window) for part, each in listed if each.next_window >= 0]:
            cursor = encode_cursor(following, None, wanted)
        items = await self._show([session_id for _, session_id in page])
        return SessionPage(items, sum(matches.total for _, matches in listed), cursor)

    async def _part(
        self, part: Part, wanted: SessionFilter, after: Key | None, count: int, caller: Caller, *, may_move: bool
    ) -> list[tuple[Part, Matches]]:
        """may_move: others may list it as well. Those that did, each with its share."""
        if not may_move and not self._still_holds(part):
            raise _moved()
        if part.node_id == self._node_id:
            return [(part, await self._query.matches(wanted, part.window, after, count, part.shards))]
        fields = {
            "user_id": wanted.user_id, "device_id": wanted.device_id, "key_id": wanted.key_id, "ip_network": wanted.ip_network,
            "time_range_start_ms": wanted.time_range_start_ms, "time_range_end_ms": wanted.time_range_end_ms,
            "active_after_ms": wanted.active_after_ms, "sort_by": wanted.sort_by, "descending": wanted.descending,
            "window": part.window, "after": after, "count": min(count, KEYS_MAX),
        }  # fmt: skip
        moved = None if may_move else _moved()
        told = await self._asking.ask(
            Operation.MATCHES, {part.node_id: part.shards}, lambda _: fields, LIST_S, caller=caller, moved=moved
        )
        listed = []
        for each in told:
            of_node = Part(each.node_id, each.shards, part.window)
            matches = Matches(**each.answer.facts)
            if len(matches.keys) == KEYS_MAX < count:
                rest = await self._part(of_node, wanted, matches.keys[-1], count - KEYS_MAX, caller, may_move=False)
                matches = matches._replace(keys=matches.keys + rest[0][1].keys)
            listed.append((of_node, matches))
        return listed

    def _still_holds(self, part: Part) -> bool:
        placement = self._placement
        if part.node_id == self._node_id:
            return not part.shards & ~placement.held
        return all(part.node_id in placement.holders(shard) for shard in shards_in(part.shards))

    async def _show(self, ids: list[bytes]) -> list[bytes]:
        shown = await self._asking.ask_of_many(Operation.SHOW, ids, lambda ids: {"ids": ids}, _pieces, READ_S)
        here = [each for each in ids if each not in shown]  # last, as they are now
        shown.update(zip(here, self._query.show(here), strict=True))
        return [shown[each] for each in ids if shown[each]]


def _pieces(answer: Answer) -> list[bytes]:
    return answer.pieces


def _moved() -> ApiError:
    return ApiError("TM-ARG-1001", {"field": "cursor", "reason": MOVED})


def _decode(text: str, wanted: SessionFilter) -> tuple[list[Part] | None, Key | None]:
    """The parts that are named, if any, and the last key that was shown. Raises TM-ARG-1001, TM-ARG-1003."""
    start, after = decode_cursor(text, wanted, CURSOR_CHARS_MAX)
    if start is None and after is not None:
        return None, after
    if type(start) is not list:
        raise bad_cursor()
    seen = 0
    parts = []
    for each in start:
        part = _part_of(each)
        if part is None or part.shards & seen:
            raise bad_cursor()
        seen |= part.shards
        parts.append(part)
    if not parts:
        raise bad_cursor()
    return parts, after


def _part_of(value: Any) -> Part | None:
    if type(value) is not list or len(value) != 3:
        return None
    node_id, shards, window = value
    is_whole = is_node_id(node_id) and type(shards) is int and 0 < shards <= ALL_SHARDS and is_window(window)
    return Part(node_id, shards, window) if is_whole else None
