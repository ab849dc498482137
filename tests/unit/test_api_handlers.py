"""Handlers driven without a server: what they ask of the domain, what they answer, what they count."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from tokmesh import ids
from tokmesh._core.clock import Clock
from tokmesh._core.counters import Counter, CounterBlock
from tokmesh._core.principal import ApiKey
from tokmesh._core.table import Table
from tokmesh._core.validate import TableBusy, Validator
from tokmesh.api.answer import Answer, Handler
from tokmesh.api.metrics import MetricsHandler
from tokmesh.api.probes import ProbeHandlers, Readiness
from tokmesh.api.sessions import SessionHandlers
from tokmesh.api.tokens import TokenHandlers
from tokmesh.api.users import UserHandlers
from tokmesh.errors import ApiError
from tokmesh.keyring import KeyRing
from tokmesh.log.interface import Proposal
from tokmesh.sessions import Sessions
from tokmesh.store import Store
from tokmesh.telemetry.exposition import Scrape

ISSUER = ApiKey("tmak-01arz3ndektsv4rrffq69g5fav", "issuer")
ADMIN = ApiKey("tmak-01arz3ndektsv4rrffq69g5faw", "admin")
TOKEN = "tmtk_" + "A" * 43


class Request:
    """A request as the wire path would hand it over. body: bytes, or an object that is sent as JSON."""

    def __init__(
        self,
        *params: str,
        body: Any = b"",
        query: dict[str, str] | None = None,
        api_key: ApiKey | None = ISSUER,
        is_local: bool = False,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.params = params
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.body_file = None
        self.request_id = "req-test"
        self.api_key = api_key
        self.peer_ip = "192.0.2.1"
        self.is_local = is_local
        self._query = query or {}
        self._headers = headers or {}

    def query_args(self) -> dict[str, str]:
        return dict(self._query)

    def header(self, name: str) -> str | None:
        return self._headers.get(name.lower())


class InstantLog:
    """A log that is durable at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sequence = 0

    def propose(self, record: Any) -> Proposal:
        self._sequence += 1
        future = Proposal(loop=asyncio.get_running_loop())
        future.set_result(self._store.apply(self._sequence, record))
        return future


class Bench:
    """The handlers over a real domain and table."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.counters = CounterBlock()
        self.table = Table(tombstone_ttl_ms=600_000)
        settings = SimpleNamespace(
            ttl=SimpleNamespace(default_ms=7_200_000, max_ms=2_592_000_000),
            quota=SimpleNamespace(max_per_user=3, policy="reject"),
        )
        log = InstantLog(Store(self.table, KeyRing()))
        domain = Sessions(self.table, log, self.clock, settings, self.counters)
        self.sessions = SessionHandlers(domain)
        self.users = UserHandlers(domain)
        self.tokens = TokenHandlers(domain, Validator(self.table, self.counters), self.counters, self.clock)

    def validations(self) -> tuple[int, int, int]:
        """Counted so far: valid, invalid, error."""
        read = self.counters.read
        return read(Counter.VALIDATE_VALID), read(Counter.VALIDATE_INVALID), read(Counter.VALIDATE_ERROR)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def run(handler: Handler, request: Request) -> Any:
    """The answer as a client would decode it."""

    async def call() -> Any:
        return await handler(request)

    answer = asyncio.run(call())
    if isinstance(answer, Answer):
        return answer
    return orjson.loads(answer if isinstance(answer, bytes) else orjson.dumps(answer))


def refusal(handler: Handler, request: Request) -> tuple[str, dict[str, Any]]:
    with pytest.raises(ApiError) as caught:
        run(handler, request)
    return caught.value.code, caught.value.details or {}


def test_create_and_validate(bench: Bench) -> None:
    created = run(bench.sessions.create, Request(body={"user_id": "u", "data": {"a": "b"}}))
    verdict = run(bench.tokens.validate, Request(body={"token": created["token"]}))
    assert verdict["valid"] is True
    assert verdict["session"]["id"] == created["session_id"]
    assert verdict["session"]["created_by"] == ISSUER.key_id
    assert run(bench.sessions.get, Request(created["session_id"].upper()))["session"] == verdict["session"]
    assert bench.validations() == (1, 0, 0)


def test_the_local_administrator_creates_for_nobody(bench: Bench) -> None:
    request = Request(body={"user_id": "u"}, api_key=None, is_local=True)
    created = run(bench.sessions.create, request)
    assert run(bench.sessions.get, Request(created["session_id"]))["session"]["created_by"] == ""


def test_validation_without_a_good_token(bench: Bench) -> None:
    verdict = run(bench.tokens.validate, Request(body={"token": TOKEN}))
    assert verdict == {"valid": False, "error": {"code": "TM-TOKN-4010", "message": "Token unknown"}}
    assert refusal(bench.tokens.validate, Request(body={"token": "x"}))[0] == "TM-TOKN-4000"
    assert bench.validations() == (0, 2, 0)
    assert refusal(bench.tokens.validate, Request(body={"token": 1}))[0] == "TM-ARG-1001"
    assert refusal(bench.tokens.validate, Request(body={"token": TOKEN}, query={"a": "b"}))[0] == "TM-ARG-1001"
    assert bench.validations() == (0, 2, 2)


def test_touching_by_validation(bench: Bench) -> None:
    created = run(bench.sessions.create, Request(body={"user_id": "u"}))
    before = run(bench.sessions.get, Request(created["session_id"]))["session"]["last_active"]
    bench.clock.shift(5000)
    run(bench.tokens.validate, Request(body={"token": created["token"]}))
    assert run(bench.sessions.get, Request(created["session_id"]))["session"]["last_active"] == before
    run(bench.tokens.validate, Request(body={"token": created["token"], "touch": True}))
    assert run(bench.sessions.get, Request(created["session_id"]))["session"]["last_active"] >= before + 5000


def test_a_batch(bench: Bench) -> None:
    created = run(bench.sessions.create, Request(body={"user_id": "u"}))
    tokens = [TOKEN, "x", created["token"], "é" * 48]
    results = run(bench.tokens.validate_batch, Request(body={"tokens": tokens}))["results"]
    assert [result["valid"] for result in results] == [False, False, True, False]
    assert [results[index]["error"]["code"] for index in (0, 1, 3)] == ["TM-TOKN-4010", "TM-TOKN-4000", "TM-TOKN-4000"]
    assert bench.validations() == (1, 3, 0)
    assert refusal(bench.tokens.validate_batch, Request(body={"tokens": [TOKEN] * 1001}))[0] == "TM-ARG-1001"
    assert bench.validations() == (1, 3, 1)


def test_a_table_that_cannot_answer_is_no_verdict(bench: Bench) -> None:
    class Busy:
        def validate_one(self, token: str, now_ms: int, touch: bool) -> bytes | None:
            raise TableBusy

        def validate_batch(self, tokens: list[str], now_ms: int, touch: bool) -> bytes:
            raise TableBusy

    handlers = TokenHandlers(None, Busy(), bench.counters, bench.clock)  # type: ignore[arg-type]
    assert refusal(handlers.validate, Request(body={"token": TOKEN}))[0] == "TM-SYS-5030"
    assert refusal(handlers.validate_batch, Request(body={"tokens": [TOKEN]}))[0] == "TM-SYS-5030"
    assert bench.validations() == (0, 0, 2)


def test_changes_of_a_session(bench: Bench) -> None:
    created = run(bench.sessions.create, Request(body={"user_id": "u"}))
    session_id = created["session_id"]
    renewed = run(bench.sessions.renew, Request(session_id, body={"ttl_seconds": 60}))
    assert renewed["new_expires_at"] < created["expires_at"]
    assert run(bench.sessions.update, Request(session_id, body={"data": {"k": "v"}, "if_version": 2})) == {"version": 3}
    assert refusal(bench.sessions.update, Request(session_id, body={"data": {}, "if_version": 2}))[0] == "TM-SESS-4091"
    touched = run(bench.sessions.touch, Request(session_id, body={"fields": ["version", "data", "version"]}))
    assert list(touched["session"].items()) == [("data", {"k": "v"}), ("version", 3)]
    rotated = run(bench.tokens.rotate, Request(body={"token": created["token"]}))
    assert ids.is_token(rotated["token"]) and rotated["expires_at"] == renewed["new_expires_at"]
    assert run(bench.sessions.revoke, Request(session_id)) == {"revoked_count": 1}
    assert run(bench.sessions.revoke, Request(session_id, body={"sync": True})) == {"revoked_count": 0}


def test_a_user(bench: Bench) -> None:
    created = [run(bench.sessions.create, Request(body={"user_id": "u"})) for _ in range(3)]
    assert refusal(bench.sessions.create, Request(body={"user_id": "u"}))[0] == "TM-SESS-4002"
    kept = created[0]["session_id"]
    body = {"except_session_id": kept}
    assert run(bench.users.revoke_sessions, Request("u", body=body)) == {"revoked_count": 2}
    [left] = run(bench.sessions.list, Request(query={"user_id": "u"}))["items"]
    assert left["id"] == kept
    assert refusal(bench.users.revoke_sessions, Request("u" * 129))[0] == "TM-SESS-4001"


def test_who_may_list(bench: Bench) -> None:
    run(bench.sessions.create, Request(body={"user_id": "u"}))
    assert refusal(bench.sessions.list, Request())[0] == "TM-AUTH-4030"
    for caller in (Request(api_key=ADMIN), Request(api_key=None, is_local=True), Request(query={"user_id": "u"})):
        assert run(bench.sessions.list, caller)["total_items"] == 1


def test_readiness_names_what_fails_and_tells_administrators_why() -> None:
    readiness = Readiness()
    reason: list[str | None] = [None]
    readiness.add("recovery", lambda: None)
    readiness.add("storage", lambda: reason[0])
    ready = ProbeHandlers(readiness).ready
    verbose = {"verbose": ""}
    assert run(ready, Request(api_key=None, query=verbose)) == {"status": "ready"}
    reason[0] = "fdatasync failed"
    silent = ("TM-SYS-5030", {"failed": ["storage"]})
    told = ("TM-SYS-5030", {"failed": ["storage"], "reasons": {"storage": "fdatasync failed"}})
    assert refusal(ready, Request(api_key=None)) == silent
    assert refusal(ready, Request(api_key=None, query=verbose)) == silent
    assert refusal(ready, Request(api_key=ISSUER, query=verbose)) == silent
    assert refusal(ready, Request(api_key=ADMIN)) == silent
    assert refusal(ready, Request(api_key=ADMIN, query={"verbose": "false"})) == silent
    assert refusal(ready, Request(api_key=ADMIN, query=verbose)) == told
    assert refusal(ready, Request(api_key=None, is_local=True, query=verbose)) == told


def test_metrics_are_passed_on() -> None:
    async def render(accept: str, accept_encoding: str) -> Scrape:
        return Scrape(f"accepted {accept} {accept_encoding}".encode(), "text/plain", accept_encoding)

    answer = run(MetricsHandler(render).scrape, Request(headers={"accept": "x/y", "accept-encoding": "gzip"}))
    assert (answer.status, answer.content_type, answer.body) == (200, "text/plain", b"accepted x/y gzip")
    assert answer.headers == (("Vary", "Accept, Accept-Encoding"), ("Content-Encoding", "gzip"))
    plain = run(MetricsHandler(render).scrape, Request())
    assert (plain.body, plain.headers) == (b"accepted  ", (("Vary", "Accept, Accept-Encoding"),))
