"""Races over a log whose commits the test orders: one winner, no resurrection, exact quotas, nothing left reserved."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.domain import Domain, code_of, id16
from tests.support.fake_log import settle
from tokmesh._core.counters import Counter
from tokmesh.ids import token_hash
from tokmesh.log.record import SessionCreated
from tokmesh.sessions.places import EVICTS_MAX
from tokmesh.sessions.reservations import WAITERS_PER_SESSION_MAX, WriteTurns

TOKEN = "tmtk_" + "A" * 43


def run(scenario: Callable[[Domain], Awaitable[None]], **options: Any) -> Domain:
    domain = Domain(**options)
    asyncio.run(scenario(domain))  # type: ignore[arg-type]
    assert domain.sessions.in_flight == 0
    return domain


async def started(*calls: Awaitable[Any]) -> "list[asyncio.Future[Any]]":
    """Starts the calls, in order, as far as they get without the log."""
    tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(call) for call in calls]
    await settle()
    return tasks


async def results(tasks: "list[asyncio.Future[Any]]") -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)


def live_of(domain: Domain, user_id: str) -> int:
    now_ms = domain.clock.now_ms()
    return sum(domain.table.status(entry, now_ms) == 0 for entry in domain.table.user_entries(user_id))


def test_of_32_racers_for_one_token_one_wins() -> None:
    async def scenario(domain: Domain) -> None:
        tasks = await started(*(domain.sessions.create(f"u{number}", token=TOKEN) for number in range(32)))
        assert len(domain.log.waiting) == 1
        domain.log.commit_all()
        codes = [code_of(result) for result in await results(tasks)]
        assert codes.count("OK") == 1 and codes.count("TM-TOKN-4090") == 31

    run(scenario, immediate=False)


def test_a_refused_create_gives_its_token_and_place_back() -> None:
    async def scenario(domain: Domain) -> None:
        for _ in range(3):
            tasks = await started(domain.sessions.create("ann", token=TOKEN), domain.sessions.create("ann"))
            domain.log.refuse()
            codes = [code_of(result) for result in await results(tasks)]
            assert codes == ["TM-SYS-5001", "TM-SESS-4002"]
            assert domain.sessions.in_flight == 0
        tasks = await started(domain.sessions.create("ann", token=TOKEN))
        domain.log.commit()
        assert code_of((await results(tasks))[0]) == "OK"

    run(scenario, immediate=False, quota=1)


def test_a_cancelled_create_holds_its_place_and_token_until_its_record_is_applied() -> None:
    """Both were once free before the record was in the table: the quota could be passed, and a token have two sessions."""

    async def scenario(domain: Domain) -> None:
        tasks = await started(domain.sessions.create("ann", token=TOKEN))
        tasks[0].cancel()
        meanwhile = await started(domain.sessions.create("ann"), domain.sessions.create("bob", token=TOKEN))
        assert len(domain.log.waiting) == 1
        assert [code_of(result) for result in await results(meanwhile)] == ["TM-SESS-4002", "TM-TOKN-4090"]
        domain.log.commit()  # it was on its way and happens all the same
        assert isinstance((await results(tasks))[0], asyncio.CancelledError)
        assert (domain.sessions.in_flight, live_of(domain, "ann")) == (0, 1)
        again = await started(domain.sessions.create("bob", token=TOKEN))
        assert code_of((await results(again))[0]) == "TM-TOKN-4090"

    run(scenario, immediate=False, quota=1)


def test_a_cancelled_create_whose_record_is_refused_gives_its_place_back() -> None:
    async def scenario(domain: Domain) -> None:
        tasks = await started(domain.sessions.create("ann", token=TOKEN))
        tasks[0].cancel()
        await settle()
        assert domain.sessions.in_flight == 2
        domain.log.refuse()
        await results(tasks)
        assert domain.sessions.in_flight == 0

    run(scenario, immediate=False)


def test_a_cancelled_update_keeps_its_turn_until_its_record_is_applied() -> None:
    """The next one would decide on the version before it."""

    async def scenario(domain: Domain) -> None:
        domain.log.immediate = True
        created = await domain.sessions.create("ann")
        domain.log.immediate = False
        tasks = await started(*(domain.sessions.update(id16(created), {}, if_version=1) for _ in range(2)))
        tasks[0].cancel()
        await settle()
        assert len(domain.log.waiting) == 1
        domain.log.commit()
        assert [code_of(result) for result in (await results(tasks))[1:]] == ["TM-SESS-4091"]

    run(scenario, immediate=False)


def test_quota_counts_what_is_in_flight() -> None:
    async def scenario(domain: Domain) -> None:
        tasks = await started(*(domain.sessions.create("ann") for _ in range(10)))
        assert len(domain.log.waiting) == 3
        domain.log.commit_all()
        codes = [code_of(result) for result in await results(tasks)]
        assert codes == ["OK"] * 3 + ["TM-SESS-4002"] * 7
        assert live_of(domain, "ann") == 3

    run(scenario, immediate=False, quota=3)


def test_quota_does_not_count_an_applied_session_twice() -> None:
    async def scenario(domain: Domain) -> None:
        first = await started(domain.sessions.create("ann"))
        domain.log.commit()  # applied, and its caller has not run yet: it is in the table and still reserved
        second = asyncio.ensure_future(domain.sessions.create("ann"))
        second_step = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(second_step.set_result, None)
        await second_step
        await settle()
        domain.log.commit_all()
        assert [code_of(result) for result in await results([*first, second])] == ["OK", "OK"]

    run(scenario, immediate=False, quota=2)


@pytest.mark.parametrize("racers", [1, 2, 3, 7])
def test_evicting_racers_never_pass_the_quota(racers: int) -> None:
    async def scenario(domain: Domain) -> None:
        domain.log.immediate = True
        for _ in range(2):
            await domain.sessions.create("ann")
        domain.log.immediate = False
        tasks = await started(*(domain.sessions.create("ann") for _ in range(racers)))
        while domain.log.waiting:
            domain.log.commit()
            assert live_of(domain, "ann") == 2
        made = await results(tasks)
        assert [code_of(result) for result in made] == ["OK"] * racers
        alive = {domain.table.session(entry).id for entry in domain.table.user_entries("ann")}
        assert alive >= {id16(result) for result in made[-2:]}  # the youngest stay
        evicted = {one for record in domain.log.records if isinstance(record, SessionCreated) for one in record.evicts}
        assert len(evicted) == domain.counters.read(Counter.SESSION_EVICT) == racers

    run(scenario, immediate=False, quota=2, policy="evict_oldest")


def test_when_one_that_was_to_be_evicted_is_refused_its_own_evictions_are_made_all_the_same() -> None:
    async def scenario(domain: Domain) -> None:
        domain.log.immediate = True
        for _ in range(2):
            await domain.sessions.create("ann")
        domain.log.immediate = False
        tasks = await started(*(domain.sessions.create("ann") for _ in range(5)))
        domain.log.commit()
        domain.log.refuse()
        while domain.log.waiting:
            domain.log.commit()
            assert live_of(domain, "ann") <= 3
        assert [code_of(result) for result in await results(tasks)].count("OK") == 4
        assert live_of(domain, "ann") == 3 and domain.sessions.in_flight == 0

    run(scenario, immediate=False, quota=3, policy="evict_oldest")


def test_of_too_many_that_begin_at_once_for_one_user_the_last_are_told_to_wait() -> None:
    async def scenario(domain: Domain) -> None:
        tasks = await started(*(domain.sessions.create("ann") for _ in range(EVICTS_MAX + 2)))
        while domain.log.waiting:
            domain.log.commit()
        made = await results(tasks)
        assert [code_of(result) for result in made] == ["OK"] * (EVICTS_MAX + 1) + ["TM-SYS-5030"]
        assert live_of(domain, "ann") == 1

    run(scenario, immediate=False, quota=1, policy="evict_oldest")


def test_an_eviction_that_the_log_refused_can_be_made_again() -> None:
    async def scenario(domain: Domain) -> None:
        domain.log.immediate = True
        old = await domain.sessions.create("ann")
        domain.log.immediate = False
        tasks = await started(domain.sessions.create("ann"))
        domain.log.refuse()
        await results(tasks)
        assert live_of(domain, "ann") == 1
        tasks = await started(domain.sessions.create("ann"))
        domain.log.commit()
        assert code_of((await results(tasks))[0]) == "OK"
        assert domain.table.status(domain.table.find(id16(old)), domain.clock.now_ms()) == 2

    run(scenario, immediate=False, quota=1, policy="evict_oldest")


WRITES: dict[str, Callable[[Domain, Any], Awaitable[Any]]] = {
    "renew": lambda domain, created: domain.sessions.renew(id16(created), 60),
    "update": lambda domain, created: domain.sessions.update(id16(created), {"k": "v"}),
    "rotate": lambda domain, created: domain.sessions.rotate(created.token, 60),
    "revoke": lambda domain, created: domain.sessions.revoke(id16(created)),
}
LOST = {"renew": "TM-SESS-4040", "update": "TM-SESS-4040", "rotate": "TM-TOKN-4012", "revoke": "OK"}


@pytest.mark.parametrize("order", list(itertools.permutations(WRITES)))
@pytest.mark.parametrize("refused_at", [None, 0, 1])
def test_a_revocation_holds_in_every_order_of_proposals_and_commits(
    order: tuple[str, ...], refused_at: int | None
) -> None:
    """All four at once, each commit or refusal followed by whatever it sets off; after the revocation nothing lives."""

    async def scenario(domain: Domain) -> None:
        domain.log.immediate = True
        created = await domain.sessions.create("ann")
        domain.log.immediate = False
        tasks = await started(*(WRITES[name](domain, created) for name in order))
        # The first writer and the revocation are in the log; the other writers wait for their turn.
        assert len(domain.log.waiting) == 2
        step = 0
        revoked = False
        while domain.log.waiting:
            is_revocation = domain.log.waiting[0][0].reserved
            if step == refused_at and not is_revocation:
                domain.log.refuse()
            else:
                domain.log.commit()
                revoked = revoked or is_revocation
            step += 1
            await settle()
            status = domain.table.status(domain.table.find(id16(created)), domain.clock.now_ms())
            assert status == (2 if revoked else 0)
        outcome = dict(zip(order, await results(tasks), strict=True))
        assert outcome["revoke"].ended == 1
        for name, result in outcome.items():
            assert code_of(result) in ("OK", LOST[name], "TM-SYS-5001")
        now_ms = domain.clock.now_ms()
        tokens = [created.token] + ([outcome["rotate"].token] if code_of(outcome["rotate"]) == "OK" else [])
        assert all(domain.table.find_token(token_hash(token), now_ms)[0] != 0 for token in tokens)
        assert code_of((await results(await started(WRITES["renew"](domain, created))))[0]) == "TM-SESS-4040"

    run(scenario, immediate=False)


@pytest.mark.parametrize("name", ["renew", "update", "rotate"])
def test_a_write_decided_before_a_revocation_and_committed_after_it_fails(name: str) -> None:
    async def scenario(domain: Domain) -> None:
        domain.log.immediate = True
        created = await domain.sessions.create("ann")
        domain.log.immediate = False
        tasks = await started(domain.sessions.revoke(id16(created)), WRITES[name](domain, created))
        assert len(domain.log.waiting) == 2  # the session was live when both were decided
        domain.log.commit_all()
        revoked, result = await results(tasks)
        assert revoked.ended == 1 and code_of(result) == LOST[name]

    run(scenario, immediate=False)


def test_writes_to_one_session_take_turns_and_decide_anew() -> None:
    async def scenario(domain: Domain) -> None:
        domain.log.immediate = True
        created = await domain.sessions.create("ann")
        domain.log.immediate = False
        tasks = await started(*(domain.sessions.update(id16(created), {"k": str(n)}, 1) for n in range(8)))
        assert len(domain.log.waiting) == 1
        domain.log.commit()
        codes = [code_of(result) for result in await results(tasks)]
        assert codes == ["OK"] + ["TM-SESS-4091"] * 7
        # Without a condition all of them happen, in order.
        tasks = await started(*(domain.sessions.update(id16(created), {"k": str(n)}) for n in range(8)))
        for _ in range(8):
            domain.log.commit()
            await settle()
        assert await results(tasks) == list(range(3, 11))
        assert domain.view(id16(created)).data == b'{"k":"7"}'

    run(scenario, immediate=False)


def test_of_racing_rotations_without_grace_one_wins() -> None:
    async def scenario(domain: Domain) -> None:
        domain.log.immediate = True
        created = await domain.sessions.create("ann")
        domain.log.immediate = False
        tasks = await started(*(domain.sessions.rotate(created.token) for _ in range(16)))
        domain.log.commit_all()
        codes = [code_of(result) for result in await results(tasks)]
        assert codes == ["OK"] + ["TM-TOKN-4011"] * 15

    run(scenario, immediate=False)


def test_a_refused_write_passes_the_turn_on() -> None:
    async def scenario(domain: Domain) -> None:
        domain.log.immediate = True
        created = await domain.sessions.create("ann")
        domain.log.immediate = False
        tasks = await started(*(domain.sessions.renew(id16(created), 60) for _ in range(3)))
        tasks[1].cancel()
        await settle()
        domain.log.refuse()
        await settle()
        domain.log.commit()
        outcome = await asyncio.gather(*tasks, return_exceptions=True)
        assert code_of(outcome[0]) == "TM-SYS-5001"
        assert isinstance(outcome[1], asyncio.CancelledError)
        assert code_of(outcome[2]) == "OK"

    run(scenario, immediate=False)


def test_a_turn_handed_to_a_waiter_that_gives_up_goes_to_the_next() -> None:
    async def scenario() -> None:
        turns = WriteTurns()
        await turns.enter(b"s")
        second, third = await started(turns.enter(b"s"), turns.enter(b"s"))
        turns.leave(b"s")  # hands over to the second, which is cancelled before it runs
        second.cancel()
        await settle()
        assert second.cancelled() and third.done() and len(turns) == 1
        turns.leave(b"s")
        assert len(turns) == 0

    asyncio.run(scenario())


def test_the_line_for_one_session_is_bounded() -> None:
    async def scenario(domain: Domain) -> None:
        domain.log.immediate = True
        created = await domain.sessions.create("ann")
        domain.log.immediate = False
        tasks = await started(*(domain.sessions.renew(id16(created), 60) for _ in range(WAITERS_PER_SESSION_MAX + 2)))
        assert code_of(tasks[-1].exception()) == "TM-SYS-5030"
        domain.log.immediate = True
        domain.log.commit()
        codes = [code_of(result) for result in await results(tasks)]
        assert codes.count("OK") == WAITERS_PER_SESSION_MAX + 1

    run(scenario, immediate=False)


def test_revoke_user_ends_what_is_about_to_begin() -> None:
    async def scenario(domain: Domain) -> None:
        tasks = await started(
            domain.sessions.create("ann"), domain.sessions.create("bob"), domain.sessions.revoke_user("ann")
        )
        domain.log.commit_all()
        ann, bob, revoked = await results(tasks)
        assert revoked.ended == 1
        now_ms = domain.clock.now_ms()
        assert domain.table.status(domain.table.find(id16(ann)), now_ms) == 2
        assert domain.table.status(domain.table.find(id16(bob)), now_ms) == 0

    run(scenario, immediate=False)


def test_concurrent_revocations_of_one_session_are_one() -> None:
    async def scenario(domain: Domain) -> None:
        domain.log.immediate = True
        created = await domain.sessions.create("ann")
        domain.log.immediate = False
        tasks = await started(*(domain.sessions.revoke(id16(created)) for _ in range(5)))
        domain.log.commit_all()
        assert [revoked.ended for revoked in await results(tasks)] == [1, 0, 0, 0, 0]

    run(scenario, immediate=False)
