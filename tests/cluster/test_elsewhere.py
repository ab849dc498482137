"""What is asked of other nodes comes to what the node that holds it would say itself, or to an error that says what is known."""

import asyncio
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from nats.aio.msg import Msg

from tests.cluster.placed import EVEN, ODD, SUBJECTS, Node, World, run, shards_of
from tests.support.nats import NatsCluster
from tests.support.waiting import until
from tokmesh._core.counters import Counter
from tokmesh._core.table import Verdict
from tokmesh.cluster import answering, placed_sessions
from tokmesh.cluster.question import Answer, Operation, Question, Status, decode_question, encode_answer, encode_question
from tokmesh.cluster.subjects import INBOX_PREFIX
from tokmesh.errors import ApiError
from tokmesh.ids import ALL_SHARDS, RandomSource, new_token_of, parse_session_id, shard_of, token_hash
from tokmesh.sessions import Created, SessionFilter

HERE, THERE = 0, 1  # an even shard and an odd one
VALID = int(Verdict.VERDICT_VALID)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server."""
    with NatsCluster(tmp_path_factory.mktemp("nats"), 1) as nats:
        yield nats.urls[0]


def id_of(created: Created) -> bytes:
    session_id = parse_session_id(created.session_id)
    assert session_id is not None
    return session_id


def token_of(shard: int) -> str:
    return new_token_of(shard, RandomSource())


async def refused(call: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await call
    return caught.value


async def begun(node: Node, shard: int, user_id: str = "ann", **fields: Any) -> Created:
    """A session of that shard."""
    created = await node.sessions.create(user_id, token=token_of(shard), **fields)
    assert shard_of(id_of(created)) == shard
    return created


@pytest.mark.parametrize("shard", [HERE, THERE])
def test_every_operation_on_a_session_is_the_same_wherever_it_is(url: str, shard: int) -> None:
    world = World(url, a=EVEN, b=ODD)

    async def work(here: Node, there: Node) -> None:
        holder = (here, there)[shard]
        here.request_id = "req-1"
        created = await begun(here, shard, device_id="d", ip_address="10.0.0.1", data={"k": "ü"}, created_by="tmak-x")
        session_id = id_of(created)
        assert (holder.table.find(session_id) > 0) and sum(node.table.stats()["sessions_active"] for node in world.nodes) == 1
        shown = orjson.loads(await here.sessions.get(session_id))
        assert (shown["id"], shown["data"], shown["created_by"]) == (created.session_id, {"k": "ü"}, "tmak-x")
        hashed = token_hash(created.token)
        [(verdict, session)] = await here.sessions.verdicts([hashed], False)
        assert verdict == VALID and orjson.loads(session) == shown
        world.clock.time_ms += 1000
        touched = orjson.loads(await here.sessions.touch(session_id, "10.0.0.2", "agent" * 1000))
        assert (touched["last_access_ip"], len(touched["last_access_ua"])) == ("10.0.0.2", 512)
        assert await here.sessions.renew(session_id, 60) == world.clock.time_ms + 60_000
        assert await here.sessions.update(session_id, {"k": "v"}, 2) == 3
        assert (await refused(here.sessions.update(session_id, {}, 2))).details == {"version": 3}
        rotated = await here.sessions.rotate(created.token, 30)
        assert shard_of(token_hash(rotated.token)) == shard and rotated.old_valid_until == world.clock.time_ms + 30_000
        both = [hashed, token_hash(rotated.token)]
        assert [each for each, _ in await here.sessions.verdicts(both, False)] == [VALID, VALID]
        assert (await here.sessions.revoke(session_id)) == (1, None)
        again = await here.sessions.revoke(session_id, True)
        assert again.ended == 0 and again.reached == (["tmnd-a", "tmnd-b"], [], 7)
        assert (await refused(here.sessions.get(session_id))).code == "TM-SESS-4040"
        counted = [holder.counters.read(each) for each in (Counter.SESSION_CREATE, Counter.SESSION_RENEW, Counter.SESSION_REVOKE)]
        assert counted == [1, 1, 1]
        assert set(holder.asked_for) == ({""} if holder is here else {"req-1"})

    run(world, work)


def test_a_node_makes_tokens_of_shards_that_it_holds_and_lets_others_begin_sessions_if_it_holds_none(url: str) -> None:
    async def work(part: Node, nothing: Node, rest: Node) -> None:
        for _ in range(20):
            created = await part.sessions.create("ann")
            assert part.holds(shard_of(id_of(created))) and shard_of(token_hash(created.token)) == shard_of(id_of(created))
        for _ in range(5):
            created = await nothing.sessions.create("bob")
            assert [each for each, _ in await nothing.sessions.verdicts([token_hash(created.token)], False)] == [VALID]
        assert nothing.table.stats()["sessions_active"] == 0 and nothing.counters.read(Counter.SESSION_CREATE) == 0

    run(World(url, a=EVEN, b=0, c=ODD), work)


def test_what_breaks_a_rule_is_refused_alike_also_when_it_is_too_large_to_be_asked(url: str) -> None:
    async def work(here: Node, there: Node) -> None:
        created = await begun(here, THERE)
        taken = await refused(here.sessions.create("ann", token=created.token))
        assert taken.code == "TM-TOKN-4090"
        for fields in ({"user_id": "x" * 10**6}, {"user_id": "u", "data": {"k": "x" * 10**6}}, {"user_id": "u", "ip_address": "?"}):
            error = await refused(here.sessions.create(**fields, token=token_of(THERE)))
            own = await refused(there.own.create(**fields, token=token_of(THERE)))
            assert (error.code, error.details) == (own.code, own.details) and error.code == "TM-SESS-4001"
        assert (await refused(here.sessions.touch(id_of(created), "1" * 10**6))).code == "TM-SESS-4001"
        assert (await refused(here.sessions.update(id_of(created), {"k": "x" * 10**6}))).code == "TM-SESS-4001"
        assert (await refused(here.sessions.create("u", token="short"))).code == "TM-TOKN-4000"
        assert (await refused(here.sessions.rotate("short"))).code == "TM-TOKN-4000"

    run(World(url, a=EVEN, b=ODD), work)


def test_many_large_sessions_are_judged_by_as_many_answers_as_they_need(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "ANSWER_BYTES_MAX", 20_000)

    async def work(here: Node, there: Node) -> None:
        made = [await begun(here, THERE, f"u{number}", data={"k": "x" * 1000}) for number in range(20)]
        hashes = [token_hash(each.token) for each in made] + [bytes(31) + b"\x01", bytes(32)]
        judged = await here.sessions.verdicts(hashes, False)
        assert [orjson.loads(session)["id"] for verdict, session in judged[:20]] == [each.session_id for each in made]
        assert judged[20:] == [(int(Verdict.VERDICT_UNKNOWN), b"")] * 2
        assert 4 < there.answered["answered"] - 20 < 20

    run(World(url, a=EVEN, b=ODD), work)


# ── all sessions of a user ──


def test_all_of_a_user_end_wherever_they_are_and_each_node_tells_how_far_that_has_come(url: str) -> None:
    async def work(here: Node, there: Node, nothing: Node) -> None:
        made = [await begun(here, shard) for shard in (HERE, THERE, THERE)]
        await begun(here, THERE, "bob")
        nothing.request_id = "req-2"
        revoked = await nothing.sessions.revoke_user("ann", id_of(made[2]), True)
        assert revoked == (2, (["tmnd-a", "tmnd-b", "tmnd-c"], [], 7))
        assert here.asked_for[-1] == there.asked_for[-1] == "req-2"
        assert (await here.sessions.revoke_user("ann")) == (1, None)
        assert (await refused(here.sessions.revoke_user(""))).code == "TM-SESS-4001"

    run(World(url, a=EVEN, b=ODD, c=0), work)


@pytest.mark.parametrize("failing", ["here", "there"])
def test_what_one_node_cannot_revoke_is_an_error_and_what_the_other_has_stays_revoked(url: str, failing: str) -> None:
    async def work(here: Node, there: Node) -> None:
        made = [await begun(here, shard) for shard in (HERE, THERE)]
        (here if failing == "here" else there).refusing = ApiError("TM-SYS-5001")
        assert (await refused(here.sessions.revoke_user("ann"))).code == "TM-SYS-5001"
        active = [node.table.stats()["sessions_active"] for node in (here, there)]
        assert active == ([1, 0] if failing == "here" else [0, 1])
        here.refusing = there.refusing = None
        assert (await here.sessions.revoke_user("ann")).ended == 1
        assert [(await refused(here.sessions.get(id_of(each)))).code for each in made] == ["TM-SESS-4040"] * 2

    run(World(url, a=EVEN, b=ODD), work)


def test_without_a_holder_for_every_shard_nothing_is_said_about_all_and_nothing_is_created(url: str) -> None:
    world = World(url, a=EVEN, b=ODD)

    async def work(here: Node, there: Node) -> None:
        await begun(here, HERE)
        world.announced = {"tmnd-a": EVEN}
        for call in (
            here.sessions.revoke_user("ann"), here.sessions.list(SessionFilter()), here.sessions.create("ann"),
            here.sessions.verdicts([bytes(32), bytes(31) + b"\x01"], False),
        ):  # fmt: skip
            assert (await refused(call)).details == {"reason": "no_holder"}
        assert here.table.stats()["sessions_active"] == 1

    run(world, work)


def test_a_quota_counts_what_others_hold_and_the_oldest_of_all_makes_room(url: str) -> None:
    world = World(url, quota=3, policy="evict_oldest", a=EVEN, b=ODD)

    async def work(here: Node, there: Node) -> None:
        made = []
        for shard in (THERE, HERE, THERE, HERE):
            world.clock.time_ms += 10
            made.append(await begun(here, shard))
        assert (await refused(here.sessions.get(id_of(made[0])))).code == "TM-SESS-4040"
        assert [node.table.stats()["sessions_active"] for node in (here, there)] == [2, 1]
        assert here.counters.read(Counter.SESSION_EVICT) == 1
        world.settings.quota.policy = "reject"
        for node in world.nodes:
            node.own.configure(world.settings)
        assert (await refused(here.sessions.create("ann"))).details == {"limit": 3}

    run(world, work)


# ── who does not answer ──


def test_without_anybody_who_holds_it_that_is_told_at_once(url: str) -> None:
    world = World(url, a=EVEN, b=ODD)

    async def work(here: Node, there: Node) -> None:
        created = await begun(here, THERE)
        for gone in ({}, {"tmnd-nobody": ODD}):  # not known, or known and not there
            world.announced = dict(gone)
            for call in (here.sessions.get(id_of(created)), here.sessions.renew(id_of(created), 60)):
                error = await refused(call)
                assert (error.code, error.details, error.retry_after_s) == ("TM-CLST-5030", {"reason": "no_holder"}, 1)
        assert here.asked["absent"] == 2

    run(world, work)


@pytest.mark.parametrize("why", ["elsewhere", "stale", "absent"])
def test_who_cannot_answer_is_passed_over_also_for_writes(url: str, why: str) -> None:
    world = World(url, a=EVEN, b=ODD, c=ODD)

    async def work(here: Node, first: Node, second: Node) -> None:
        created = await begun(here, THERE)
        if why == "elsewhere":
            first.shards = 0
        elif why == "stale":
            first.may_answer = False
        else:
            world.announced = {"tmnd-nobody": ODD, "tmnd-c": ODD}
        assert await here.sessions.renew(id_of(created), 60) > 0
        assert orjson.loads(await here.sessions.get(id_of(created)))["id"] == created.session_id
        assert here.asked[why] == 2 and second.answered["answered"] == 2

    run(world, work)


def test_who_holds_some_of_it_no_more_is_asked_for_the_rest_and_others_for_what_it_left(url: str) -> None:
    left = shards_of(1, 3)
    world = World(url, a=EVEN, b=ODD, c=left)

    async def work(here: Node, most: Node, few: Node) -> None:
        made = [await begun(here, shard) for shard in (1, 5)]
        world.announced = {"tmnd-b": ODD, "tmnd-c": left}  # the first is asked for all of it
        most.shards = ODD & ~left
        most.table.held_shards = most.shards
        assert (await here.sessions.create("bob")).token
        assert (await here.sessions.list(SessionFilter())).total_items == 3
        hashes = [token_hash(each.token) for each in made]
        assert [each for each, _ in await here.sessions.verdicts(hashes, False)] == [VALID, VALID]
        assert here.asked["elsewhere"] == most.answered["elsewhere"] == 4

    run(world, work)


def test_who_has_answered_for_its_shards_is_asked_for_those_of_one_that_is_gone(url: str) -> None:
    world = World(url, a=EVEN, b=ODD)

    async def work(here: Node, there: Node) -> None:
        made = [await begun(here, shard) for shard in (1, 3)]
        world.announced = {"tmnd-gone": shards_of(1), "tmnd-b": ODD}
        hashes = [token_hash(each.token) for each in made]
        assert [each for each, _ in await here.sessions.verdicts(hashes, False)] == [VALID, VALID]
        assert here.asked["absent"] == 1

    run(world, work)


async def silent(node: Node, node_id: str) -> list[int]:
    """A node of that id hears what it is asked, on the link of another, and says nothing."""
    heard: list[int] = []

    async def hear(message: Msg) -> None:
        heard.append(decode_question(message.data).operation)

    await node.link.subscribe(SUBJECTS.questions(node_id), hear)
    await node.world.settle(node.link)
    return heard


def test_reading_is_tried_again_on_another_holder_and_a_write_that_is_not_answered_has_an_unknown_outcome(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placed_sessions, "READ_S", 0.6)
    monkeypatch.setattr(placed_sessions, "WRITE_S", 0.3)
    world = World(url, a=EVEN, b=ODD)

    async def work(here: Node, there: Node) -> None:
        created = await begun(here, THERE)
        heard = await silent(there, "tmnd-silent")
        world.announced = {"tmnd-silent": ODD, "tmnd-b": ODD}
        assert orjson.loads(await here.sessions.get(id_of(created)))["id"] == created.session_id
        error = await refused(here.sessions.renew(id_of(created), 60))
        assert (error.code, error.details) == ("TM-CLST-5030", {"reason": "holder_silent", "outcome": "unknown"})
        assert len(heard) == 2 and here.asked["silent"] == 2 and there.counters.read(Counter.SESSION_RENEW) == 0
        world.announced = {"tmnd-silent": ODD}
        error = await refused(here.sessions.get(id_of(created)))
        assert (error.code, error.details) == ("TM-CLST-5030", {"reason": "holder_silent"})

    run(world, work)


def test_a_holder_that_dies_in_the_middle_of_a_write_leaves_its_outcome_unknown(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placed_sessions, "WRITE_S", 0.5)

    async def work(here: Node, there: Node) -> None:
        created = await begun(here, THERE)
        there.held_up = asyncio.Event()
        writing = asyncio.ensure_future(here.sessions.revoke(id_of(created)))
        await until(lambda: len(there.elsewhere.answering), "it is asked")
        await there.link.close()
        error = await refused(writing)
        assert error.details == {"reason": "holder_silent", "outcome": "unknown"}

    run(World(url, a=EVEN, b=ODD), work)


def test_a_holder_that_stops_answers_what_is_under_way_and_sends_others_away(url: str) -> None:
    async def work(here: Node, there: Node, other: Node) -> None:
        created = await begun(here, THERE)
        there.held_up = asyncio.Event()
        writing = asyncio.ensure_future(here.sessions.renew(id_of(created), 60))
        await until(lambda: len(there.elsewhere.answering), "it is asked")
        draining = asyncio.ensure_future(there.elsewhere.drain())
        assert await here.sessions.renew(id_of(created), 60)
        assert (here.asked["stale"], other.answered["answered"]) == (1, 1)
        assert not draining.done()
        there.held_up.set()
        await draining
        assert await writing and here.asked["silent"] == 0

    run(World(url, a=EVEN, b=ODD, c=ODD), work)


@pytest.mark.parametrize("answer", [b"", b"\x01", b"\x02" + bytes(20), encode_answer(Answer(Status.DONE, {"x": 1}, []))])
def test_an_answer_that_is_none_is_no_answer(url: str, answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placed_sessions, "READ_S", 0.5)
    world = World(url, a=EVEN, b=ODD)

    async def work(here: Node, there: Node) -> None:
        created = await begun(here, THERE)

        async def reply(message: Msg) -> None:
            await there.link.publish(message.reply, answer)

        await there.link.subscribe(SUBJECTS.questions("tmnd-bad"), reply)
        await world.settle(there.link)
        world.announced = {"tmnd-bad": ODD, "tmnd-b": ODD}
        assert orjson.loads(await here.sessions.get(id_of(created)))["id"] == created.session_id
        error = await refused(here.sessions.renew(id_of(created), 60))
        assert error.details == {"reason": "holder_silent", "outcome": "unknown"}
        assert here.asked["undecodable"] == 2

    run(world, work)


def test_questions_that_cannot_be_read_are_counted_and_change_nothing(url: str) -> None:
    async def work(here: Node, there: Node) -> None:
        good = encode_question(Question(Operation.PLACES, ODD, "", {"user_id": "ann"}))
        inbox = f"{INBOX_PREFIX}.x"
        # The last names a place for the answer that is no node's: a node may publish where who asks may not.
        for bad, reply in ((b"", inbox), (b"\x02" + bytes(30), inbox), (bytes(30), inbox), (good, SUBJECTS.beats), (good, "")):
            await here.link.publish(SUBJECTS.questions("tmnd-b"), bad, reply)
        await until(lambda: there.elsewhere.answering.undecodable == 5, "they are counted")
        assert not any(there.answered.values())
        await begun(here, THERE)

    run(World(url, a=EVEN, b=ODD), work)


def test_a_node_does_so_much_at_a_time_for_others_and_refuses_what_is_beyond(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "TASKS_MAX", 3)

    async def work(here: Node, there: Node) -> None:
        made = [await begun(here, THERE) for _ in range(5)]
        there.held_up = asyncio.Event()
        writes = [asyncio.ensure_future(here.sessions.renew(id_of(each), 60)) for each in made]
        await until(lambda: sum(write.done() for write in writes) == 2, "two are refused")
        there.held_up.set()
        results = await asyncio.gather(*writes, return_exceptions=True)
        errors = [each for each in results if isinstance(each, ApiError)]
        assert [(error.code, error.details) for error in errors] == [("TM-SYS-5030", {"reason": "holder_busy"})] * 2

    run(World(url, a=EVEN, b=ODD), work)


def test_a_node_that_holds_all_asks_nobody(url: str) -> None:
    async def work(here: Node, there: Node) -> None:
        created = await here.sessions.create("ann")
        await here.sessions.get(id_of(created))
        await here.sessions.revoke(id_of(created))
        assert not any(here.asked.values()) and not any(there.answered.values())

    run(World(url, a=ALL_SHARDS, b=ALL_SHARDS), work)
