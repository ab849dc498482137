"""Operations on sessions in a cluster whose nodes hold a part of them each: done here if they are held here, else where they are.

The only place that chooses. While this node holds all, every operation is that of `Sessions`, without anything in between. No token
leaves this node: whoever was given it, or made it, sends its hash.
"""

import asyncio
import random
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from tokmesh._core.table import Verdict
from tokmesh.cluster.asking import READ_S, Asking, Placement, cover_of, no_answer
from tokmesh.cluster.placed_list import PlacedList
from tokmesh.cluster.question import READS, Answer, Operation
from tokmesh.errors import ApiError
from tokmesh.ids import SHARDS, RandomSource, is_token, new_token_of, shard_of, shards_in, token_hash
from tokmesh.log.interface import Reached
from tokmesh.sessions import Created, Judged, Revoked, Rotated, SessionFilter, SessionPage, Sessions
from tokmesh.sessions.places import EVICTS_MAX, Places, PlacesElsewhere
from tokmesh.sessions.rules import check_user_id, cut_user_agent

WRITE_S: Final = 1.9  # a write is answered within 2 s, whoever does it
PLACES_S: Final = 0.5  # before a write of 1.8 s
SPREAD_S: Final = 1.2  # beyond a write and `max_staleness`, until no node can say yes any more
ADDRESS_CHARS_MAX: Final = 64  # more than an address has
TEXTS_CHARS_MAX: Final = 8192  # more than the fields of a session have together

_VALID: Final = int(Verdict.VERDICT_VALID)


class PlacedSessions:
    """`SessionOperations`; see the module. sessions: this node's. max_staleness_s: as configured."""

    def __init__(
        self, sessions: Sessions, placement: Placement, asking: Asking, node_id: str, max_staleness_s: float
    ) -> None:
        self._sessions = sessions
        self._placement = placement
        self._asking = asking
        self._node_id = node_id
        self._sync_s = WRITE_S + max_staleness_s + SPREAD_S
        self._random = RandomSource()
        self._list = PlacedList(sessions.query, placement, asking, node_id)
        sessions.places_elsewhere = self._places_elsewhere

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
    ) -> Awaitable[Created]:
        """As Sessions'."""
        if self._placement.all_here or (token is not None and not is_token(token)):
            return self._sessions.create(
                user_id, device_id, ip_address, user_agent, ttl_seconds, idle_seconds, data, token, created_by=created_by
            )
        fields = {
            "user_id": user_id, "device_id": device_id, "ip_address": ip_address, "user_agent": user_agent,
            "ttl_seconds": ttl_seconds, "idle_seconds": idle_seconds, "data": data, "created_by": created_by,
        }  # fmt: skip
        return self._create(token, fields)

    async def _create(self, token: str | None, fields: dict[str, Any]) -> Created:
        if token is None:
            token = new_token_of(self._shard_to_begin(), self._random)
        hashed = fields["hashed"] = token_hash(token)
        fields["user_agent"] = cut_user_agent(fields["user_agent"])
        if self._is_here(hashed) or _is_too_large(fields):  # what is too large breaks a rule, which is told at once
            return replace(await self._sessions.create(**fields), token=token)
        facts = (await self._ask(Operation.CREATE, shard_of(hashed), fields)).facts
        return Created(facts["session_id"], token, facts["expires_at"])

    def get(self, session_id: bytes) -> Awaitable[bytes]:
        """As Sessions'."""
        if self._is_here(session_id):
            return self._sessions.get(session_id)
        return self._session(Operation.GET, {"session_id": session_id})

    def touch(
        self, session_id: bytes, ip_address: str | None = None, user_agent: str | None = None
    ) -> Awaitable[bytes]:
        """As Sessions'."""
        if self._is_here(session_id):
            return self._sessions.touch(session_id, ip_address, user_agent)
        return self._touch(session_id, ip_address, user_agent)

    async def _touch(self, session_id: bytes, ip_address: str | None, user_agent: str | None) -> bytes:
        address = None if ip_address is None else ip_address[:ADDRESS_CHARS_MAX]
        agent = None if user_agent is None else cut_user_agent(user_agent)
        return await self._session(Operation.TOUCH, {"session_id": session_id, "ip_address": address, "user_agent": agent})

    async def _session(self, operation: Operation, fields: Mapping[str, Any]) -> bytes:
        [session] = (await self._ask(operation, shard_of(fields["session_id"]), fields)).pieces
        return session

    async def verdicts(self, hashes: Sequence[bytes], touch: bool) -> list[Judged]:
        """As Sessions'."""
        asked = list(dict.fromkeys(hashes))
        judged = await self._asking.ask_of_many(
            Operation.VERDICTS, asked, lambda hashes: {"hashes": hashes, "touch": touch}, _judged, READ_S
        )
        here = [hashed for hashed in asked if hashed not in judged]  # last, so that none has waited for others
        judged.update(zip(here, await self._sessions.verdicts(here, touch), strict=True))
        return [judged[hashed] for hashed in hashes]

    def renew(self, session_id: bytes, ttl_seconds: int) -> Awaitable[int]:
        """As Sessions'."""
        if self._is_here(session_id):
            return self._sessions.renew(session_id, ttl_seconds)
        return self._fact(Operation.RENEW, "expires_at", {"session_id": session_id, "ttl_seconds": ttl_seconds})

    def update(self, session_id: bytes, data: dict[str, str], if_version: int | None = None) -> Awaitable[int]:
        """As Sessions'."""
        fields = {"session_id": session_id, "data": data, "if_version": if_version}
        if self._is_here(session_id) or _is_too_large(fields):
            return self._sessions.update(session_id, data, if_version)
        return self._fact(Operation.UPDATE, "version", fields)

    async def _fact(self, operation: Operation, name: str, fields: Mapping[str, Any]) -> int:
        value: int = (await self._ask(operation, shard_of(fields["session_id"]), fields)).facts[name]
        return value

    def rotate(self, token: str, grace_seconds: int = 0) -> Awaitable[Rotated]:
        """As Sessions'."""
        if self._placement.all_here or not is_token(token) or self._is_here(token_hash(token)):
            return self._sessions.rotate(token, grace_seconds)
        return self._rotate(token_hash(token), grace_seconds)

    async def _rotate(self, hashed: bytes, grace_seconds: int) -> Rotated:
        new = new_token_of(shard_of(hashed), self._random)
        fields = {"hashed": hashed, "new_hash": token_hash(new), "grace_seconds": grace_seconds}
        facts = (await self._ask(Operation.ROTATE, shard_of(hashed), fields)).facts
        return Rotated(new, facts["expires_at"], facts["old_valid_until"])

    def revoke(self, session_id: bytes, sync: bool = False) -> Awaitable[Revoked]:
        """As Sessions'."""
        if self._is_here(session_id):
            return self._sessions.revoke(session_id, sync)
        return self._revoke(session_id, sync)

    async def _revoke(self, session_id: bytes, sync: bool) -> Revoked:
        fields = {"session_id": session_id, "sync": sync}
        return _revoked(await self._ask(Operation.REVOKE, shard_of(session_id), fields, self._sync_s if sync else WRITE_S))

    def revoke_user(self, user_id: str, except_id: bytes | None = None, sync: bool = False) -> Awaitable[Revoked]:
        """As Sessions', but that each node does its part, up to its limit: what ended, ended, also when the answer is an error."""
        if self._placement.all_here:
            return self._sessions.revoke_user(user_id, except_id, sync)
        return self._revoke_user(user_id, except_id, sync)

    async def _revoke_user(self, user_id: str, except_id: bytes | None, sync: bool) -> Revoked:
        check_user_id(user_id)
        parts = cover_of(self._placement)
        here = parts.pop(self._node_id, 0)
        fields = {"user_id": user_id, "except_id": except_id, "sync": sync}
        deadline_s = self._sync_s if sync else WRITE_S
        asking = self._asking.ask(
            Operation.REVOKE_USER, parts, lambda _: fields, deadline_s, caller=self._asking.caller()
        )
        others = asyncio.get_running_loop().create_task(asking)
        others.add_done_callback(_forget)
        ended: list[Revoked] = []
        error: ApiError | None = None
        try:
            if here:
                ended.append(await self._sessions.revoke_user(user_id, except_id, sync, here))
        except ApiError as refused:
            error = refused
        ended += [_revoked(told.answer) for told in await others]
        if error is not None:
            raise error
        return _sum(ended)

    def list(self, session_filter: SessionFilter) -> Awaitable[SessionPage]:
        """As Sessions', but for what placed_list.py says."""
        if self._placement.all_here:
            return self._sessions.list(session_filter)
        return self._list.run(session_filter)

    # ── parts ──

    def _is_here(self, raw: bytes) -> bool:
        return self._placement.all_here or self._placement.holds(shard_of(raw))

    async def _ask(
        self, operation: Operation, shard: int, fields: Mapping[str, Any], deadline_s: float | None = None
    ) -> Answer:
        if deadline_s is None:
            deadline_s = READ_S if operation in READS else WRITE_S
        parts = self._asking.holders_of(1 << shard)
        [told] = await self._asking.ask(operation, parts, lambda _: fields, deadline_s)
        return told.answer

    def _shard_to_begin(self) -> int:
        """Any that is held here; if there is none, any that somebody holds."""
        placement = self._placement
        shards = shards_in(placement.held) or [shard for shard in range(SHARDS) if placement.holders(shard)]
        if not shards:
            raise no_answer("no_holder")
        return random.choice(shards)

    def _places_elsewhere(self, user_id: str) -> Awaitable[PlacesElsewhere] | None:
        return None if self._placement.all_here else self._ask_for_places(user_id)

    async def _ask_for_places(self, user_id: str) -> PlacesElsewhere:
        parts = cover_of(self._placement)
        here = parts.pop(self._node_id, 0)
        told = await self._asking.ask(Operation.PLACES, parts, lambda _: {"user_id": user_id}, PLACES_S)
        facts = [each.answer.facts for each in told]
        oldest = sorted(key for each in facts for key in each["oldest"])[:EVICTS_MAX]
        return PlacesElsewhere(Places(sum(each["total"] for each in facts), oldest), here)


def _is_too_large(fields: Mapping[str, Any]) -> bool:
    texts = (fields.get("user_id", ""), fields.get("device_id", ""), fields.get("ip_address", ""))
    data = fields["data"] or {}
    return sum(map(len, texts)) + sum(len(name) + len(value) for name, value in data.items()) > TEXTS_CHARS_MAX


def _judged(answer: Answer) -> list[Judged]:
    """The verdicts of an answer, each with its session."""
    sessions = iter(answer.pieces)
    return [(verdict, next(sessions) if verdict == _VALID else b"") for verdict in answer.facts["verdicts"]]


def _sum(parts: Sequence[Revoked]) -> Revoked:
    """What nodes have revoked together: a node has it when it has all of that."""
    ended = sum(part.ended for part in parts)
    reached = [part.reached for part in parts if part.reached is not None]
    if not reached:
        return Revoked(ended, None)
    applied = set.intersection(*(set(each.applied) for each in reached))
    fenced = {node_id for each in reached for node_id in (*each.applied, *each.fenced)} - applied
    return Revoked(ended, Reached(sorted(applied), sorted(fenced), max(each.took_ms for each in reached)))


def _forget(task: "asyncio.Task[Any]") -> None:
    """Whatever became of it, should nobody wait for it any more."""
    if not task.cancelled():
        task.exception()


def _revoked(answer: Answer) -> Revoked:
    facts = answer.facts
    reached = Reached(facts["applied"], facts["fenced"], facts["took_ms"]) if "applied" in facts else None
    return Revoked(facts["ended"], reached)
