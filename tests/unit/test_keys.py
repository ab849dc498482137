"""API keys: making and switching them, and telling who presents which without letting strangers spend our CPU."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.domain import T0, Domain, code_of
from tests.support.fake_log import settle
from tests.support.waiting import until
from tokmesh._core.counters import Counter
from tokmesh.errors import ApiError
from tokmesh.ids import is_secret, parse_key_id
from tokmesh.keys import CreatedKey, Keys, service
from tokmesh.keys.argon2_pool import Argon2Pool
from tokmesh.keys.authenticator import Authenticator
from tokmesh.log.record import KeyCreated


@dataclass
class Argon2:
    memory_kib: int = 64  # the least there is: these tests are about when it runs, not how long
    iterations: int = 1
    parallelism: int = 1


@dataclass
class Auth:
    cache_ttl_ms: int = 60_000
    cache_capacity: int = 3
    argon2: Argon2 = field(default_factory=Argon2)


class World(Domain):
    """The domain with keys; one pool for both, so that its runs can be counted and its bound be met."""

    def __init__(self, *, pending_max: int = 4, **auth: Any) -> None:
        super().__init__()
        self.auth = Auth(**auth)
        self.pool = Argon2Pool(self.auth.argon2, workers=1, pending_max=pending_max)
        self.keys = Keys(self.keyring, self.log, self.clock, self.auth, pool=self.pool)
        self.authenticator = Authenticator(self.keyring, self.auth, self.clock, self.counters, pool=self.pool)

    def runs(self) -> int:
        return self.authenticator.stats()["argon2_runs_total"]


def run(scenario: Callable[[World], Awaitable[None]], **options: Any) -> None:
    async def closing() -> None:
        world = World(**options)
        try:
            await scenario(world)
        finally:
            world.authenticator.close()

    asyncio.run(closing())


def credential(created: CreatedKey) -> bytes:
    return f"{created.key_id}:{created.key_secret}".encode()


def key_id16(created: CreatedKey) -> bytes:
    key_id = parse_key_id(created.key_id)
    assert key_id is not None
    return key_id


async def refusal(call: Awaitable[Any]) -> str:
    with pytest.raises(ApiError) as caught:
        await call
    return caught.value.code


def test_a_key_is_made_and_known_without_its_secret() -> None:
    async def scenario(world: World) -> None:
        assert not world.keys.has_any()
        created = await world.keys.create(
            "issuer", "web front", ["10.1.2.3/8", "10.0.0.0/8", "::1"], 5, world.clock.now_ms() + 60_000
        )
        assert world.keys.has_any() and is_secret(created.key_secret)
        [stored] = world.keys.list()
        assert stored.api_key.key_id == created.key_id and stored.api_key.role_name == "issuer"
        assert (stored.description, stored.allowedlist) == ("web front", ("10.0.0.0/8", "::1/128"))
        assert stored.api_key.rate_per_second == 5.0 and stored.created_at_ms >= T0
        assert stored.argon2_hash.startswith("$argon2id$v=19$m=64,t=1,p=1$")
        [record] = world.log.records
        assert isinstance(record, KeyCreated)
        assert created.key_secret.encode() not in record.encode()
        assert created.key_secret[5:].encode() not in record.encode()

    run(scenario)


def test_no_more_keys_are_made_than_may_be_also_when_they_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "KEYS_MAX", 3)

    async def scenario(world: World) -> None:
        world.log.immediate = False
        making = [asyncio.ensure_future(world.keys.create("metrics")) for _ in range(4)]
        await until(lambda: len(world.log.waiting) + sum(made.done() for made in making) == 4, "each is proposed or refused")
        world.log.refuse()
        world.log.commit_all()
        outcomes = [code_of(made) for made in await asyncio.gather(*making, return_exceptions=True)]
        assert outcomes == ["TM-SYS-5001", "OK", "OK", "TM-ADMIN-4091"]
        assert await refusal(world.keys.create("nobody")) == "TM-ARG-1001"
        world.log.immediate = True
        await world.keys.create("metrics")
        assert await refusal(world.keys.create("metrics")) == "TM-ADMIN-4091"
        assert await refusal(world.keys.create("nobody")) == "TM-ARG-1001", "what is wrong with it comes first"
        assert len(world.keys.list()) == 3

    run(scenario)


def test_a_first_key_whose_outcome_is_not_known_is_made_once() -> None:
    async def scenario(world: World) -> None:
        world.log.immediate = False
        making = asyncio.ensure_future(world.keys.create_first(bytes(16), asyncio.Event()))
        outcomes = [ApiError("TM-CLST-5030", {"outcome": "unknown"}), ApiError("TM-CLST-5030"), ApiError("TM-ADMIN-4091")]
        proposed = []
        for outcome in outcomes:
            await until(lambda: world.log.waiting, "it is proposed")
            record, future = world.log.waiting.popleft()
            proposed.append(record)
            future.set_exception(outcome)
        assert proposed == proposed[:1] * 3
        await until(lambda: world.log.waiting, "it is proposed until it is known to have been made")
        world.store.apply(1, proposed[0])
        world.log.waiting.popleft()[1].set_exception(ApiError("TM-ADMIN-4091"))
        created = await making
        assert created is not None and parse_key_id(created.key_id) == bytes(16)
        assert (await world.authenticator.authenticate(credential(created))).api_key is world.keys.list()[0].api_key
        assert len(world.keys.list()) == 1

    run(scenario)


def test_a_first_key_that_another_node_has_made_is_shown_by_that_one() -> None:
    async def scenario(world: World) -> None:
        world.log.immediate = False
        making = asyncio.ensure_future(world.keys.create_first(bytes(16), asyncio.Event()))
        other = World()
        assert await other.keys.create_first(bytes(16), asyncio.Event()) is not None
        await until(lambda: world.log.waiting, "it is proposed")
        world.store.apply(1, other.log.records[0])
        world.log.waiting.popleft()[1].set_exception(ApiError("TM-ADMIN-4091"))
        assert await making is None
        assert len(world.keys.list()) == 1
        other.authenticator.close()

    run(scenario)


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_first_key_is_an_admin_s_and_another_refusal_than_of_a_cluster_ends_the_start(is_alone: bool) -> None:
    async def scenario(world: World) -> None:
        created = await world.keys.create_first(None if is_alone else bytes(16), asyncio.Event())
        assert created is not None and world.keys.list()[0].api_key.role_name == "admin"
        assert (parse_key_id(created.key_id) == bytes(16)) != is_alone
        world.log.refusing = True
        assert await refusal(world.keys.create_first(None, asyncio.Event())) == "TM-SYS-5001"

    run(scenario)


@pytest.mark.parametrize(
    "fields",
    [
        {"role": "root"}, {"role": ""}, {"description": "x" * 257}, {"description": "a\n"}, {"description": "\ud800"},
        {"allowedlist": ["10.0.0.0/33"]}, {"allowedlist": ["a b"]}, {"allowedlist": [""]}, {"allowedlist": ["::1"] * 65},
        {"rate_limit": -1}, {"rate_limit": float("nan")}, {"rate_limit": float("inf")}, {"rate_limit": 1e9},
        {"rate_limit": True}, {"expires_at": 0}, {"expires_at": T0 - 1}, {"expires_at": 2**60}, {"expires_at": True},
    ],
)  # fmt: skip
def test_bad_fields_make_no_key(fields: dict[str, Any]) -> None:
    async def scenario(world: World) -> None:
        assert await refusal(world.keys.create(**{"role": "issuer", **fields})) == "TM-ARG-1001"
        assert not world.log.records and world.runs() == 0

    run(scenario)


def test_a_verified_credential_is_cached_and_argon2_runs_once() -> None:
    async def scenario(world: World) -> None:
        created = await world.keys.create("validator")
        runs = world.runs()
        assert world.authenticator.cached(credential(created)) is None
        grant = await world.authenticator.authenticate(credential(created))
        assert grant.api_key is world.keys.list()[0].api_key
        assert grant.refusal(world.clock.now_ms()) == 0
        assert world.authenticator.cached(credential(created)) is grant
        assert world.runs() == runs + 1
        stats = world.authenticator.stats()
        assert (stats["cache_hits"], stats["cache_misses"], stats["cache_entries"]) == (1, 1, 1)
        world.clock.shift(60_001)
        assert world.authenticator.cached(credential(created)) is None
        assert world.authenticator.stats()["cache_entries"] == 0

    run(scenario)


def test_key_ids_fold_and_secrets_do_not() -> None:
    async def scenario(world: World) -> None:
        created = await world.keys.create("validator")
        upper = f"{created.key_id.upper()}:{created.key_secret}".encode()
        runs = world.runs()
        grant = await world.authenticator.authenticate(upper)
        assert grant.api_key.key_id == created.key_id
        # Else whoever has a key could run Argon2 for each of a million ways to write its id, and fill the cache with them.
        assert world.authenticator.cached(credential(created)) is grant
        assert world.authenticator.cached(upper.replace(b"TMAK", b"tMaK")) is grant
        assert world.runs() == runs + 1
        swapped = f"{created.key_id}:tmas_{created.key_secret[5:].swapcase()}".encode()
        assert await refusal(world.authenticator.authenticate(swapped)) == "TM-AUTH-4011"

    run(scenario)


def test_strangers_never_run_argon2() -> None:
    async def scenario(world: World) -> None:
        created = await world.keys.create("admin")
        runs = world.runs()
        wrong = [
            f"{created.key_id}:tmas_{'A' * 43}".encode(),
            f"tmak-{'0' * 26}:{created.key_secret}".encode(),
        ]
        malformed = [
            b"", b":", created.key_id.encode(), created.key_secret.encode(), credential(created) + b"x",
            credential(created).replace(b":", b" "), b"\xff" * 80, credential(created) + b"\n", b"a" * 100_000,
            f"{created.key_id}:{created.key_secret.upper()}".encode(),
        ]  # fmt: skip
        for _ in range(50):
            for one in wrong + malformed:
                assert world.authenticator.cached(one) is None
                assert await refusal(world.authenticator.authenticate(one)) == "TM-AUTH-4011"
        assert world.runs() == runs
        assert world.authenticator.stats()["prefilter_rejects_total"] == 100
        assert world.counters.read(Counter.AUTH_INVALID) == 100
        assert world.counters.read(Counter.AUTH_MALFORMED) == 500
        assert world.authenticator.stats()["cache_entries"] == 0

    run(scenario)


def test_disabled_and_expired_keys_are_told_so_to_their_owners_only() -> None:
    async def scenario(world: World) -> None:
        disabled = await world.keys.create("issuer")
        expired = await world.keys.create("issuer", expires_at=world.clock.now_ms() + 10_000)
        grants = [await world.authenticator.authenticate(credential(one)) for one in (disabled, expired)]
        await world.keys.set_status(key_id16(disabled), False)
        world.clock.shift(10_000)
        assert grants[0].refusal(world.clock.now_ms()) == 2 and grants[1].refusal(world.clock.now_ms()) == 3
        runs = world.runs()
        for one in (disabled, expired):
            assert await refusal(world.authenticator.authenticate(credential(one))) == "TM-AUTH-4012"
            stranger = f"{one.key_id}:tmas_{'A' * 43}".encode()
            assert await refusal(world.authenticator.authenticate(stranger)) == "TM-AUTH-4011"
        assert world.runs() == runs
        assert world.authenticator.cached(credential(disabled)) is None
        assert (world.counters.read(Counter.AUTH_DISABLED), world.counters.read(Counter.AUTH_EXPIRED)) == (1, 1)
        await world.keys.set_status(key_id16(disabled), True)
        assert grants[0].refusal(world.clock.now_ms()) == 1  # stale: given before the change
        again = await world.authenticator.authenticate(credential(disabled))
        assert again.refusal(world.clock.now_ms()) == 0

    run(scenario)


def test_requests_that_wait_for_one_credential_share_one_run() -> None:
    async def scenario(world: World) -> None:
        created = await world.keys.create("validator")
        runs = world.runs()
        grants = await asyncio.gather(*(world.authenticator.authenticate(credential(created)) for _ in range(40)))
        assert world.runs() == runs + 1
        assert len({id(grant) for grant in grants}) == 1
        assert world.authenticator.stats()["argon2_pending"] == 0

    run(scenario)


def test_one_that_gives_up_takes_nothing_from_the_others() -> None:
    async def scenario(world: World) -> None:
        created = await world.keys.create("validator")
        gate = threading.Event()  # the only worker waits here, so that the one who gives up does so before there is a result
        blocked = world.pool._submit(gate.wait)
        tasks = [asyncio.ensure_future(world.authenticator.authenticate(credential(created))) for _ in range(3)]
        await settle()
        tasks[0].cancel()
        gate.set()
        await blocked
        grants = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(grants[0], asyncio.CancelledError)
        assert code_of(grants[1]) == code_of(grants[2]) == "OK"

    run(scenario)


def test_a_full_pool_is_503_and_never_a_no() -> None:
    async def scenario(world: World) -> None:
        made = [await world.keys.create("validator") for _ in range(4)]
        world.pool.pending += 2  # two more are at it
        calls = [world.authenticator.authenticate(credential(one)) for one in made]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [code_of(result) for result in results] == ["OK", "OK", "TM-SYS-5030", "TM-SYS-5030"]
        assert all(isinstance(result, ApiError) and result.retry_after_s == 1 for result in results[2:])
        assert world.counters.read(Counter.AUTH_OVERLOADED) == 2
        assert code_of(await world.authenticator.authenticate(credential(made[3]))) == "OK"

    run(scenario)


def test_a_key_disabled_while_it_is_verified_is_not_granted() -> None:
    async def scenario(world: World) -> None:
        created = await world.keys.create("validator")
        task = asyncio.ensure_future(world.authenticator.authenticate(credential(created)))
        await asyncio.sleep(0)
        world.keyring.all()[0].api_key.set_active(False)
        assert await refusal(task) == "TM-AUTH-4012"

    run(scenario)


def test_the_cache_forgets_what_was_used_longest_ago() -> None:
    async def scenario(world: World) -> None:
        made = [await world.keys.create("validator") for _ in range(4)]
        for one in made[:3]:
            await world.authenticator.authenticate(credential(one))
        assert world.authenticator.cached(credential(made[0])) is not None
        await world.authenticator.authenticate(credential(made[3]))
        found = [world.authenticator.cached(credential(one)) is not None for one in made]
        assert found == [True, False, True, True]

    run(scenario)


def test_the_last_admin_key_may_be_disabled_and_an_unknown_key_is_404() -> None:
    async def scenario(world: World) -> None:
        created = await world.keys.create("admin")
        for _ in range(2):
            await world.keys.set_status(key_id16(created), False)
        assert world.keys.has_any()
        assert await refusal(world.keys.set_status(bytes(16), True)) == "TM-ADMIN-4041"

    run(scenario)


def test_of_racing_switches_the_last_one_holds() -> None:
    async def scenario(world: World) -> None:
        created = await world.keys.create("admin")
        world.log.immediate = False
        tasks = [
            asyncio.ensure_future(world.keys.set_status(key_id16(created), on)) for on in (False, True, False, True)
        ]
        await settle()
        world.log.commit_all()
        await asyncio.gather(*tasks)
        assert world.keys.list()[0].api_key.active

    run(scenario)


def test_a_verifier_that_is_none_is_503() -> None:
    async def scenario(world: World) -> None:
        created = await world.keys.create("validator")
        world.keyring.all()[0].argon2_hash = "$argon2id$no"
        assert await refusal(world.authenticator.authenticate(credential(created))) == "TM-SYS-5030"

    run(scenario)
