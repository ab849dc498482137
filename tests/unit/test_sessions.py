"""Sessions one at a time: what each call does, refuses, counts and logs."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from tests.support.domain import T0, Domain, code_of, id16
from tokmesh._core.counters import Counter
from tokmesh._core.table import Status
from tokmesh.errors import ApiError
from tokmesh.ids import is_token, token_hash
from tokmesh.log.record import SessionsRevoked, SessionsTouched, decode

HOUR_MS = 3_600_000
TOKEN = "tmtk_" + "A" * 43
Scenario = Callable[[Domain], Awaitable[None]]


def run(scenario: Scenario, **options: Any) -> Domain:
    domain = Domain(**options)
    asyncio.run(scenario(domain))  # type: ignore[arg-type]
    assert domain.sessions.in_flight == 0
    return domain


async def refused(call: Awaitable[Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await call
    return caught.value


def test_create_makes_a_session_that_can_be_read() -> None:
    async def scenario(domain: Domain) -> None:
        before = domain.clock.now_ms()
        created = await domain.sessions.create(
            "ann", "phone", "2001:DB8::0:1", "agent/1", 3600, 60, {"b": "2", "a": "ü"}, created_by="tmak-x"
        )
        assert is_token(created.token)
        assert 0 <= created.expires_at - before - HOUR_MS < 1000
        view = domain.view(id16(created))
        assert view[1:8] == ("ann", "phone", "2001:db8::1", "agent/1", "2001:db8::1", "agent/1", "tmak-x")
        assert (view.data, view.version, view.idle_seconds) == ('{"b":"2","a":"ü"}'.encode(), 1, 60)
        assert view.created_at == view.last_active == created.expires_at - HOUR_MS
        shown = orjson.loads(await domain.sessions.get(id16(created)))
        assert shown["id"] == created.session_id and shown["data"] == {"b": "2", "a": "ü"}
        assert domain.table.find_token(token_hash(created.token), before + 1)[0] == 0

    domain = run(scenario)
    assert domain.counters.read(Counter.SESSION_CREATE) == 1


def test_defaults() -> None:
    async def scenario(domain: Domain) -> None:
        created = await domain.sessions.create("ann")
        view = domain.view(id16(created))
        assert view.expires_at - view.created_at == 7_200_000
        assert (view.device_id, view.ip_address, view.user_agent, view.created_by) == ("", "", "", "")
        assert (view.data, view.idle_seconds) == (b"{}", 0)

    run(scenario)


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("user_id", ["a", "ü" * 128, "a b", "x\u200by"], ["", "a" * 129, "a\x00", "a\n", "\x7f", "\x9f", "\ud800"]),
        ("device_id", ["", "d" * 128], ["d" * 129, "\x00", "\t", "x\udfff"]),
        ("ip_address", ["", "0.0.0.0", "::", "::ffff:1.2.3.4"],
         ["1.2.3", "01.2.3.4", "1.2.3.4/8", "fe80::1%eth0", "a", "1.2.3.4\x00", "١.2.3.4"]),
        ("user_agent", ["", "a" * 600, "a\tb"], ["\ud800", "x\udc00y" ]),
        ("ttl_seconds", [1, 2_592_000], [0, -1, 2_592_001, 1.5, True, "1", 2**70]),
        ("idle_seconds", [1, 2_592_000], [0, -1, 2_592_001, True]),
        ("data", [{}, {"k" * 64: "v" * 1024}, {"k": ""}, {"ü": "\x00"}],
         [{"": "v"}, {"k" * 65: "v"}, {"k": "v" * 1025}, {"k": 1}, {"k": None}, {1: "v"}, {"k": "\ud800"}]),
    ],
)  # fmt: skip
def test_field_rules(field: str, good: list[Any], bad: list[Any]) -> None:
    async def scenario(domain: Domain) -> None:
        for value in good:
            await domain.sessions.create(**{"user_id": "ann", field: value})
        records = len(domain.log.records)
        for value in bad:
            error = await refused(domain.sessions.create(**{"user_id": "ann", field: value}))
            assert error.code == "TM-SESS-4001", (field, value)
            assert error.details is not None and error.details["field"] == field and error.details["rule"]
        assert len(domain.log.records) == records

    run(scenario)


def test_data_is_at_most_4096_bytes_of_json() -> None:
    async def scenario(domain: Domain) -> None:
        # {"a":"…1024…","b":…,"c":…,"d":…}: the braces, quotes, colons and commas of four pairs take 29 bytes and 4 keys.
        full = {"a": "x" * 1024, "b": "x" * 1024, "c": "x" * 1024, "d": "x" * (4096 - 3 * 1024 - 29)}
        assert len(orjson.dumps(full)) == 4096
        created = await domain.sessions.create("ann", data=full)
        assert len(domain.view(id16(created)).data) == 4096
        error = await refused(domain.sessions.create("ann", data={**full, "d": full["d"] + "x"}))
        assert error.details == {"field": "data", "rule": "at most 4096 bytes as JSON"}
        assert (
            await refused(domain.sessions.update(id16(created), {**full, "d": full["d"] + "x"}))
        ).code == "TM-SESS-4001"

    run(scenario)


def test_addresses_are_stored_in_normal_form_and_agents_cut() -> None:
    async def scenario(domain: Domain) -> None:
        created = await domain.sessions.create("ann", ip_address="2001:0DB8:0:0::0001", user_agent="ü" * 600)
        view = domain.view(id16(created))
        assert (view.ip_address, view.user_agent) == ("2001:db8::1", "ü" * 512)
        await domain.sessions.touch(id16(created), "10.0.0.9", "b" * 513)
        view = domain.view(id16(created))
        assert (view.last_access_ip, view.last_access_ua) == ("10.0.0.9", "b" * 512)
        assert (view.ip_address, view.user_agent, view.version) == ("2001:db8::1", "ü" * 512, 1)

    run(scenario)


def test_a_client_may_bring_its_own_token_once() -> None:
    async def scenario(domain: Domain) -> None:
        for malformed in ("", "tmtk_", TOKEN + "A", TOKEN.upper(), "tmas_" + "A" * 43):
            assert (await refused(domain.sessions.create("ann", token=malformed))).code == "TM-TOKN-4000"
        created = await domain.sessions.create("ann", token=TOKEN)
        assert created.token == TOKEN
        assert (await refused(domain.sessions.create("bob", token=TOKEN))).code == "TM-TOKN-4090"
        await domain.sessions.revoke(id16(created))
        assert (await refused(domain.sessions.create("bob", token=TOKEN))).code == "TM-TOKN-4090"
        domain.clock.shift(601_000)
        domain.sessions.sweep(1000)
        assert (await domain.sessions.create("bob", token=TOKEN)).token == TOKEN

    run(scenario)


def test_quota_reject_counts_live_sessions_only() -> None:
    async def scenario(domain: Domain) -> None:
        short = await domain.sessions.create("ann", ttl_seconds=10)
        await domain.sessions.create("ann")
        error = await refused(domain.sessions.create("ann"))
        assert (error.code, error.status, error.details) == ("TM-SESS-4002", 429, {"limit": 2})
        await domain.sessions.create("bob")
        domain.clock.shift(10_000)  # ended, and not swept
        third = await domain.sessions.create("ann")
        assert (await refused(domain.sessions.create("ann"))).code == "TM-SESS-4002"
        await domain.sessions.revoke(id16(third))
        await domain.sessions.create("ann")
        assert code_of(await refused(domain.sessions.renew(id16(short), 60))) == "TM-SESS-4041"

    run(scenario, quota=2)


def test_quota_evict_oldest_revokes_in_the_same_record() -> None:
    async def scenario(domain: Domain) -> None:
        made = [await domain.sessions.create("ann") for _ in range(5)]
        assert [domain.table.status(domain.table.find(id16(one)), domain.clock.now_ms()) for one in made] == [
            2,
            2,
            2,
            0,
            0,
        ]
        assert len(domain.log.records) == 5

    domain = run(scenario, quota=2, policy="evict_oldest")
    assert domain.counters.read(Counter.SESSION_EVICT) == 3


def test_a_lowered_quota_is_reached_by_the_next_create() -> None:
    async def scenario(domain: Domain) -> None:
        for _ in range(6):
            await domain.sessions.create("ann")
        domain.settings.quota.max_per_user = 2
        domain.sessions.configure(domain.settings)
        await domain.sessions.create("ann")
        now_ms = domain.clock.now_ms()
        assert sum(domain.table.status(entry, now_ms) == 0 for entry in domain.table.user_entries("ann")) == 2

    run(scenario, quota=6, policy="evict_oldest")


def test_renew_is_from_now_and_may_shorten() -> None:
    async def scenario(domain: Domain) -> None:
        created = await domain.sessions.create("ann", ttl_seconds=3600)
        domain.clock.shift(1_000_000)
        now_ms = domain.clock.now_ms()
        assert 0 <= await domain.sessions.renew(id16(created), 7200) - now_ms - 2 * HOUR_MS < 1000
        assert 0 <= await domain.sessions.renew(id16(created), 5) - now_ms - 5000 < 1000
        view = domain.view(id16(created))
        assert view.version == 3 and view.last_active >= now_ms
        domain.clock.shift(5_001)
        assert (await refused(domain.sessions.renew(id16(created), 5))).code == "TM-SESS-4041"
        assert (await refused(domain.sessions.renew(bytes(16), 5))).code == "TM-SESS-4040"
        assert (await refused(domain.sessions.renew(id16(created), 0))).code == "TM-SESS-4001"

    assert run(scenario).counters.read(Counter.SESSION_RENEW) == 2


def test_update_replaces_data_and_checks_the_version() -> None:
    async def scenario(domain: Domain) -> None:
        created = await domain.sessions.create("ann", data={"a": "1", "b": "2"})
        assert await domain.sessions.update(id16(created), {"c": "3"}) == 2
        assert await domain.sessions.update(id16(created), {}, 2) == 3
        error = await refused(domain.sessions.update(id16(created), {}, 2))
        assert (error.code, error.details) == ("TM-SESS-4091", {"version": 3})
        assert domain.view(id16(created)).data == b"{}"
        assert (await refused(domain.sessions.update(bytes(16), {}))).code == "TM-SESS-4040"

    assert run(scenario).counters.read(Counter.SESSION_UPDATE) == 2


def test_idle_end_and_absolute_end_both_mean_expired() -> None:
    async def scenario(domain: Domain) -> None:
        idle = await domain.sessions.create("ann", idle_seconds=10)
        absolute = await domain.sessions.create("ann", ttl_seconds=10)
        domain.clock.shift(9_000)
        await domain.sessions.touch(id16(idle))
        await domain.sessions.touch(id16(absolute))
        domain.clock.shift(1_000)
        await domain.sessions.get(id16(idle))
        assert code_of(await refused(domain.sessions.get(id16(absolute)))) == "TM-SESS-4041"
        domain.clock.shift(9_000)
        for created in (idle, absolute):
            assert code_of(await refused(domain.sessions.get(id16(created)))) == "TM-SESS-4041"
            assert code_of(await refused(domain.sessions.rotate(created.token))) == "TM-TOKN-4011"
            with pytest.raises(ApiError, match="TM-SESS-4041"):
                await domain.sessions.touch(id16(created))

    run(scenario)


def test_revoke_is_idempotent_and_final() -> None:
    async def scenario(domain: Domain) -> None:
        created = await domain.sessions.create("ann")
        assert (await domain.sessions.revoke(id16(created))).ended == 1
        assert (await domain.sessions.revoke(id16(created))).ended == 0
        assert code_of(await refused(domain.sessions.get(id16(created)))) == "TM-SESS-4040"
        for call in (
            domain.sessions.renew(id16(created), 60),
            domain.sessions.update(id16(created), {}),
        ):
            assert (await refused(call)).code == "TM-SESS-4040"
        assert (await refused(domain.sessions.rotate(created.token))).code == "TM-TOKN-4012"
        assert (await refused(domain.sessions.revoke(bytes(16)))).code == "TM-SESS-4040"
        expired = await domain.sessions.create("ann", ttl_seconds=1)
        domain.clock.shift(1_000)
        assert (await domain.sessions.revoke(id16(expired))).ended == 1
        assert domain.log.records[-1].reserved

    assert run(scenario).counters.read(Counter.SESSION_REVOKE) == 2


def test_revoke_user_spares_one_and_others() -> None:
    async def scenario(domain: Domain) -> None:
        mine = [await domain.sessions.create("ann") for _ in range(4)]
        other = await domain.sessions.create("bob")
        assert (await domain.sessions.revoke_user("ann", id16(mine[2]))).ended == 3
        assert (await domain.sessions.revoke_user("ann", id16(mine[2]))).ended == 0
        await domain.sessions.get(id16(mine[2]))
        await domain.sessions.get(id16(other))
        assert (await domain.sessions.revoke_user("nobody")).ended == 0
        assert sum(isinstance(record, SessionsRevoked) for record in domain.log.records) == 1

    run(scenario)


@pytest.mark.parametrize(("count", "code"), [(1000, "OK"), (1001, "TM-SESS-4002")])
def test_revoke_user_ends_at_most_1000_at_once(count: int, code: str) -> None:
    async def scenario(domain: Domain) -> None:
        made = [await domain.sessions.create("ann") for _ in range(count)]
        results = await asyncio.gather(domain.sessions.revoke_user("ann"), return_exceptions=True)
        assert code_of(results[0]) == code
        assert domain.table.status(domain.table.find(id16(made[0])), domain.clock.now_ms()) == (
            2 if code == "OK" else 0
        )

    run(scenario, quota=2000)


@pytest.mark.parametrize("is_swept", [True, False])
@pytest.mark.parametrize("is_alone", [True, False])
def test_revoke_user_in_a_cluster_ends_what_has_expired_by_this_clock_alone_too(is_alone: bool, is_swept: bool) -> None:
    async def scenario(domain: Domain) -> None:
        spared, expired = [await domain.sessions.create("ann", ttl_seconds=10) for _ in range(2)]
        live = await domain.sessions.create("ann", ttl_seconds=3600)
        domain.clock.shift(11_000)
        if is_swept:
            domain.sessions.sweep(100)
        assert (await domain.sessions.revoke_user("ann", id16(spared))).ended == (1 if is_alone else 2)
        found = [domain.table.status(domain.table.find(id16(each)), domain.clock.now_ms()) for each in (spared, expired, live)]
        assert found == [Status.EXPIRED, Status.EXPIRED if is_alone else Status.REVOKED, Status.REVOKED]
        assert (await domain.sessions.revoke_user("ann", id16(spared))).ended == 0

    run(scenario, is_alone=is_alone)


def test_what_has_expired_by_this_clock_is_no_part_of_the_1000() -> None:
    async def scenario(domain: Domain) -> None:
        for _ in range(1001):
            await domain.sessions.create("ann", ttl_seconds=10)
        domain.clock.shift(11_000)
        domain.sessions.sweep(2000)
        assert (await domain.sessions.revoke_user("ann")).ended == 1001

    run(scenario, quota=2000, is_alone=False)


def test_rotate_gives_a_new_token_and_the_old_one_its_grace() -> None:
    async def scenario(domain: Domain) -> None:
        created = await domain.sessions.create("ann")
        rotated = await domain.sessions.rotate(created.token, 30)
        now_ms = domain.clock.now_ms()
        assert rotated.expires_at == created.expires_at
        assert 0 <= now_ms + 30_000 - rotated.old_valid_until < 1000
        old, new = token_hash(created.token), token_hash(rotated.token)
        assert domain.table.find_token(old, now_ms)[0] == domain.table.find_token(new, now_ms)[0] == 0
        assert domain.table.find_token(old, rotated.old_valid_until)[0] == 2
        assert domain.table.find_token(new, rotated.old_valid_until)[0] == 0
        at_once = await domain.sessions.rotate(rotated.token)
        assert (await refused(domain.sessions.rotate(rotated.token))).code == "TM-TOKN-4011"
        assert domain.view(id16(created)).version == 3
        assert at_once.token not in (created.token, rotated.token)
        for bad in (-1, 61, 1.0, True):
            assert (await refused(domain.sessions.rotate(at_once.token, bad))).code == "TM-SESS-4001"  # type: ignore[arg-type]
        assert (await refused(domain.sessions.rotate("tmtk_x"))).code == "TM-TOKN-4000"
        assert (await refused(domain.sessions.rotate(TOKEN))).code == "TM-TOKN-4010"

    assert run(scenario).counters.read(Counter.SESSION_ROTATE) == 2


def test_the_grace_ends_with_the_session() -> None:
    async def scenario(domain: Domain) -> None:
        created = await domain.sessions.create("ann", ttl_seconds=5)
        assert (await domain.sessions.rotate(created.token, 60)).old_valid_until == created.expires_at

    run(scenario)


def test_touches_are_logged_in_bulk_once() -> None:
    async def scenario(domain: Domain) -> None:
        made = [await domain.sessions.create("ann", ip_address="10.0.0.1") for _ in range(300)]
        assert await domain.sessions.flush_touched() == 0
        domain.clock.shift(500)
        for created in made:
            await domain.sessions.touch(id16(created), "10.0.0.2")
        assert await domain.sessions.flush_touched() == 300
        assert await domain.sessions.flush_touched() == 0
        flushed = [record for record in domain.log.records if isinstance(record, SessionsTouched)]
        assert [len(record.touches) for record in flushed] == [256, 44]
        assert {touch[0] for record in flushed for touch in record.touches} == {id16(created) for created in made}
        assert all(
            touch[1] >= T0 + 500 and touch[2:] == ("10.0.0.2", None) for record in flushed for touch in record.touches
        )

    run(scenario, quota=1000)


def test_touches_that_the_log_refuses_are_kept() -> None:
    async def scenario(domain: Domain) -> None:
        created = await domain.sessions.create("ann")
        await domain.sessions.touch(id16(created))
        domain.log.refusing = True
        assert (await refused(domain.sessions.flush_touched())).code == "TM-SYS-5001"
        domain.log.refusing = False
        assert await domain.sessions.flush_touched() == 1
        assert await domain.sessions.flush_touched() == 0

    run(scenario)


def test_replay_brings_back_the_same_table_and_tells_the_log_nothing_anew() -> None:
    async def scenario(domain: Domain) -> None:
        created = await domain.sessions.create("ann", data={"a": "1"})
        domain.clock.shift(2_000)
        await domain.sessions.touch(id16(created), "10.0.0.3", "late")
        await domain.sessions.flush_touched()
        await domain.sessions.update(id16(created), {"a": "2"})
        again = Domain()
        for sequence, record in enumerate(domain.log.records, 1):
            again.store.replay(sequence, decode(record.encode()))
        first, second = (one.view(id16(created)) for one in (domain, again))
        assert first == second
        assert await again.sessions.flush_touched() == 0

    run(scenario)
