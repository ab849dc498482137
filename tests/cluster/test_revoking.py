"""What has lost its token to another session, or was never begun here, is ended in the stream, by whoever is there to say so."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.test_jetstream_taking import SUBJECTS, T0, World, play, session, session_id
from tests.support.cluster import Cluster
from tests.support.nats_hands import put
from tests.support.waiting import until
from tokmesh._core.streamed import StreamedBatch
from tokmesh._core.table import Outcome
from tokmesh.cluster import revoking
from tokmesh.cluster.publishing import Publication, unknown_outcome
from tokmesh.cluster.revoking import Revoking
from tokmesh.cluster.statement import UNCONDITIONAL, Statement
from tokmesh.cluster.subjects import Subjects
from tokmesh.ids import parse_session_id, token_hash
from tokmesh.log.record import SessionsRevoked, SessionStated, decode_enveloped
from tokmesh.log.stream_record import Envelope

WINNER, LOSER = session_id(1), session_id(2)


def with_the_token_of_the_winner() -> SessionStated:
    """The statement of the loser."""
    return changed(session(2), token_hash=session(1).token_hash)


def changed(stated: SessionStated, **fields: Any) -> SessionStated:
    for name, value in fields.items():
        setattr(stated, name, value)
    return stated


def enveloped(record: SessionStated) -> bytes:
    return Envelope("tmnd-b", 1, 1, "", record.encode()).encode()


def batch_of(world: World, *contents: bytes) -> StreamedBatch:
    batch = StreamedBatch(world.log.position, world.clock)
    for position, content in enumerate(contents, world.log.position + 1):
        batch.append(position, content)
    return batch


def last_put(world: World) -> Publication:
    assert world.publishing.put_last is not None
    return world.publishing.put_last


def check_ends_the_loser(world: World) -> None:
    found = last_put(world)
    record = decode_enveloped(found.payload)
    assert isinstance(record, SessionsRevoked) and record.session_ids == (LOSER,)
    assert (found.subject, found.expected) == (SUBJECTS.session(LOSER), UNCONDITIONAL)


async def take(world: World, *contents: bytes) -> None:
    batch = batch_of(world, *contents)
    world.log.take(batch)
    await until(lambda: world.store.following.position == batch.position, "all is applied")


def test_who_has_lost_its_token_is_ended_though_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        ending = Revoking(world.log, world.stating, world.store.following, world.clock)
        future = world.log.propose_alone(Statement(SUBJECTS.session(LOSER), with_the_token_of_the_winner(), 0, 0, ""))
        mine = last_put(world)
        mine.failed(unknown_outcome())  # its time was over before it came back
        assert future.exception() is not None
        await take(world, enveloped(session(1)), mine.payload)
        ending.look()
        check_ends_the_loser(world)

    play(tmp_path, script)


def test_who_has_lost_its_token_is_ended_by_nodes_that_did_not_begin_it_until_the_stream_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revoking, "AGAIN_NS", 300_000_000)

    async def script(world: World) -> None:
        ending = Revoking(world.log, world.stating, world.store.following, world.clock)
        await take(world, enveloped(session(1)), enveloped(with_the_token_of_the_winner()))
        ending.look()
        ending.look()
        check_ends_the_loser(world)
        assert world.publishing.count == 1, "it is under way"
        last_put(world).failed(unknown_outcome())
        await asyncio.sleep(0.35)
        ending.look()
        assert world.publishing.count == 2, "again, as it came to nothing"
        check_ends_the_loser(world)
        await take(world, last_put(world).payload)
        await asyncio.sleep(0.35)
        ending.look()
        assert world.publishing.count == 2
        assert world.known(1, 2) == [True, False]

    play(tmp_path, script)


def test_what_a_restarted_node_finds_in_its_own_log_is_ended(tmp_path: Path) -> None:
    async def before(world: World) -> None:
        await take(world, enveloped(session(1)), enveloped(with_the_token_of_the_winner()))

    play(tmp_path, before)
    world = World(tmp_path)
    world.own.recover(world.store.replay)
    assert world.store.following.tokenless == {LOSER}


def test_what_this_node_began_without_room_for_it_is_ended(tmp_path: Path) -> None:
    """Others may have had room, and its client was told that it did not begin."""

    async def script(world: World) -> None:
        ending = Revoking(world.log, world.stating, world.store.following, world.clock)
        future = world.log.propose_alone(Statement(SUBJECTS.session(LOSER), session(2), 0, 0, ""))
        await take(world, enveloped(session(1)), last_put(world).payload)
        assert await future == Outcome.FULL
        ending.look()
        check_ends_the_loser(world)

    play(tmp_path, script, entries_max=1)


def test_a_revocation_that_would_be_forgotten_before_a_renewal_is_stated_again(tmp_path: Path) -> None:
    """A node that has the renewal and was away for the revocation would come back with the session."""

    async def script(world: World) -> None:
        ending = Revoking(world.log, world.stating, world.store.following, world.clock)
        await take(world, enveloped(session(2)))
        future = world.log.propose(SessionsRevoked(T0 + 2, (LOSER,)))
        revoked = last_put(world)
        longer = changed(session(2), version=2, expires_at_ms=T0 + 600_000)
        await take(world, enveloped(longer), revoked.payload)
        world.log.spread(world.log.position, world.log.position)
        assert await future == 1
        ending.look()
        assert world.publishing.count == 2
        check_ends_the_loser(world)
        kept_s = [int(each.headers["Nats-TTL"].removesuffix("s")) for each in (revoked, last_put(world))]
        assert kept_s[0] == 60 + 660 and kept_s[1] > 500 + 660
        await take(world, last_put(world).payload)
        ending.look()
        assert world.publishing.count == 2, "once is enough"

    play(tmp_path, script)


def test_a_node_that_comes_later_says_the_same_of_a_token_that_two_sessions_began_with(tmp_path: Path) -> None:
    """It meets the loser first, as the winner was changed since; the node that began the loser is gone."""
    with Cluster(tmp_path, nodes=2, servers=1) as cluster:
        token = "tmtk_" + "A" * 43
        first = cluster.create(0, token=token)
        first_id = parse_session_id(first["session_id"])
        assert first_id is not None
        loser = first_id[:-1] + bytes((first_id[-1] ^ 1,))
        now_ms = int.from_bytes(first_id[:6], "big")
        record = changed(
            session(2), time_ms=now_ms, session_id=loser, token_hash=token_hash(token), created_at_ms=now_ms, last_active_ms=now_ms,
            expires_at_ms=now_ms + 3_600_000,
        )  # fmt: skip
        subject = Subjects("tokmesh").session(loser)
        put(cluster.nats.servers[0], subject, enveloped(record))
        status, answer = cluster.ask(0, "POST", f"/sessions/{first['session_id']}/update", {"data": {"a": "b"}})
        assert status == 200, answer
        cluster.add_node().start()
        for node in range(3):
            cluster.wait_verdict(node, token, True)
            cluster.session(node, first["session_id"])
        status, answer = cluster.ask(1, "POST", f"/sessions/{first['session_id']}/revoke", {})
        assert status == 200, answer
        for node in range(3):
            cluster.wait_verdict(node, token, "TM-TOKN-4012")
