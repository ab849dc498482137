"""Bad input over every route: each fault gives its stated code, changes nothing and tells nothing from inside."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.http.client import Answer
from tests.http.route_cases import CASES, GETS, GUARDED, ISSUERS, POSTS, VALIDATORS, Case
from tests.http.world import ROLES, TOKEN, UNKNOWN_KEY, UNKNOWN_SESSION, World, start_world
from tokmesh.api.admin.cluster import ClusterHandlers
from tokmesh.api.routes import build_routes

BODY_BYTES_MAX = 1 << 20


def by_name(cases: list[Case] | tuple[Case, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = start_world(tmp_path_factory.mktemp("bad-input"))
    active_before = world.active_sessions()
    try:
        yield world
        assert world.active_sessions() == active_before == 1
        assert world.metric("tokmesh_session_create_total") == 1
    finally:
        world.process.stop()


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    """The shared server; afterwards everything in it is as it was."""
    before = shared_world.state()
    yield shared_world
    assert shared_world.state() == before


def send(world: World, case: Case, body: Any = ..., *, key: str | None = "admin", **options: Any) -> Answer:
    path = case.path.replace("{session_id}", world.session["session_id"])
    return world.ask(case.method, path, case.body if body is ... else body, key=key, **options)


def test_the_cases_are_the_routes() -> None:
    routes = build_routes(
        sessions=None,  # type: ignore[arg-type]
        keys=None,  # type: ignore[arg-type]
        readiness=None,  # type: ignore[arg-type]
        validator=None,  # type: ignore[arg-type]
        counters=None,  # type: ignore[arg-type]
        clock=None,  # type: ignore[arg-type]
        render_metrics=None,  # type: ignore[arg-type]
        metrics_auth_enabled=True,
        audit=None,  # type: ignore[arg-type]
        log_level=None,  # type: ignore[arg-type]
        config=None,  # type: ignore[arg-type]
        summarize=None,  # type: ignore[arg-type]
        backups=SimpleNamespace(snapshots=None, restores=None, in_cluster=False, directory=Path(), upload_bytes_max=0),  # type: ignore[arg-type]
        cluster=ClusterHandlers(None, "", lambda: None),
    )
    lowest: dict[object, str] = {None: "none", ("metrics", "admin"): "metrics", VALIDATORS: "validator", ISSUERS: "issuer"}
    described = {(case.method, case.template): lowest.get(case.admits, "admin") for case in CASES}
    assert described == {(route.method, route.template): route.role for route in routes}


@by_name(CASES)
def test_another_method(world: World, case: Case) -> None:
    allowed = {other.method for other in CASES if other.template == case.template}
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"} - allowed:
        path = case.path.replace("{session_id}", world.session["session_id"])
        answer = world.ask(method, path)
        answer.refused("TM-SYS-4050")
        assert set(answer.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nope",
        "/Sessions",
        "/sessions/",
        "//sessions",
        "/sessions/x/y",
        "/sessions/x/revoke/",
        "/sessions//revoke",
        "/tokens",
        "/tokens/validate/",
        "/tokens/validate/batch/x",
        "/users/settled/sessions",
        "/users//sessions/revoke",
        "/admin",
        "/admin/v1",
        "/admin/v1/keys/",
        "/admin/v2/keys",
        "/health/",
        "/sessions/../health",
        "/%73essions",
    ],
)
def test_an_unknown_route(world: World, method: str, path: str) -> None:
    world.ask(method, path).refused("TM-SYS-4040")
    world.ask(method, path, key=None).refused("TM-SYS-4040")


@by_name(GUARDED)
def test_no_key(world: World, case: Case) -> None:
    send(world, case, key=None).refused("TM-AUTH-4010")


@by_name(GUARDED)
@pytest.mark.parametrize(
    "credential",
    [
        "nonsense",
        f"{UNKNOWN_KEY}:tmas_{'a' * 43}",
        f"{UNKNOWN_KEY}:",
        f":tmas_{'a' * 43}",
        "{admin_id}:tmas_" + "a" * 43,
        "{admin_id}",
        "{admin}x",
        "{admin_id}:tmas_" + "a" * 4000,
        TOKEN,
    ],
)
def test_a_wrong_key(world: World, case: Case, credential: str) -> None:
    admin = world.keys["admin"]
    text = credential.replace("{admin}", admin).replace("{admin_id}", admin.split(":")[0])
    send(world, case, key=None, headers={"Authorization": f"Bearer {text}"}).refused("TM-AUTH-4011")
    send(world, case, key=None, headers={"X-API-Key": text}).refused("TM-AUTH-4011")


@by_name(GUARDED)
def test_a_disabled_and_an_expired_key(world: World, case: Case) -> None:
    send(world, case, key="disabled").refused("TM-AUTH-4012")
    send(world, case, key="expired").refused("TM-AUTH-4012")


@by_name(GUARDED)
def test_two_keys_that_differ(world: World, case: Case) -> None:
    send(world, case, headers={"X-API-Key": world.keys["issuer"]}).refused("TM-ARG-1003")


@by_name(GUARDED)
def test_a_role_that_may_not(world: World, case: Case) -> None:
    assert case.admits is not None
    for role in ROLES:
        if role not in case.admits:
            send(world, case, key=role).refused("TM-AUTH-4030")


def test_a_list_of_everybody_is_for_administrators(world: World) -> None:
    world.ask("GET", "/sessions", key="issuer").refused("TM-AUTH-4030")
    world.ask("GET", "/sessions?device_id=d", key="issuer").refused("TM-AUTH-4030")
    assert world.ask("GET", "/sessions?user_id=settled", key="issuer").data["total_items"] == 1


NOT_JSON = (
    b"{",
    b"nonsense",
    b"[" * 2000,
    b'{"a":"\xff"}',
    b'{"a":"\xed\xa0\x80"}',
    b'{"a":"\\ud800"}',
    b"{}{}",
    b"\x00",
    b"\xef\xbb\xbf{}",
    b"null",
    b"[]",
    b'"x"',
    b"7",
)


@by_name(POSTS)
def test_a_body_that_is_no_json_object(world: World, case: Case) -> None:
    for body in NOT_JSON:
        send(world, case, body).refused("TM-SYS-4000")


@by_name(POSTS)
def test_no_body(world: World, case: Case) -> None:
    if case.required:
        send(world, case, None).refused("TM-SYS-4000")


@by_name(POSTS)
def test_an_unknown_field(world: World, case: Case) -> None:
    details = send(world, case, {**(case.body or {}), "surprise": 1}).refused("TM-SYS-4000")
    assert details["field"] == "surprise"
    secret = send(world, case, {**(case.body or {}), TOKEN: 1})
    secret.refused("TM-SYS-4000")
    assert TOKEN.encode() not in secret.body


@by_name(POSTS)
def test_a_key_twice(world: World, case: Case) -> None:
    for name, value in (case.body or {}).items():
        good = json.dumps(case.body)
        body = f'{good[:-1]}, "{name}": {json.dumps(value)}}}'
        assert send(world, case, body).refused("TM-SYS-4000")["reason"] == "duplicate_key"


@by_name(POSTS)
def test_deep_json(world: World, case: Case) -> None:
    for name in case.body or {}:
        body = {**(case.body or {})}
        for levels in (8, 500):
            text = json.dumps(body).replace(json.dumps(body[name]), "[" * levels + "]" * levels, 1)
            send(world, case, text).refused("TM-SYS-4000")


@by_name(POSTS)
def test_a_missing_field(world: World, case: Case) -> None:
    for name in case.required:
        body = {key: value for key, value in (case.body or {}).items() if key != name}
        assert send(world, case, body).refused("TM-ARG-1002")["field"] == name


@by_name(POSTS)
def test_wrong_types(world: World, case: Case) -> None:
    for name, good in (case.body or {}).items():
        for wrong in (None, True, 7, 7.5, "x", [], ["x"], [7], {}, {"k": "v"}, {"k": 7}, 10**30):
            if type(wrong) is type(good) and wrong not in ([7], {"k": 7}):
                continue
            answer = send(world, case, {**(case.body or {}), name: wrong})
            assert answer.refused("TM-ARG-1001")["field"] == name


@by_name(POSTS)
def test_a_body_of_one_megabyte_and_one_byte(world: World, case: Case) -> None:
    send(world, case, b"{}" + b" " * (BODY_BYTES_MAX - 1)).refused("TM-SYS-4130")
    if case.required:
        send(world, case, b"{}" + b" " * (BODY_BYTES_MAX - 2)).refused("TM-ARG-1002")


@by_name(GETS)
def test_a_get_with_a_body(world: World, case: Case) -> None:
    send(world, case, {}).refused("TM-SYS-4000")
    assert send(world, case, None, headers={"Content-Length": "0"}).status == (200 if case.answers == "OK" else 404)


@by_name(CASES)
def test_unknown_and_repeated_query_parameters(world: World, case: Case) -> None:
    mark = "&" if "?" in case.path else "?"
    path = case.path.replace("{session_id}", world.session["session_id"]) + mark
    world.ask(case.method, path + "surprise=1", case.body).refused("TM-ARG-1001")
    world.ask(case.method, path + "a=1&a=1", case.body).refused("TM-ARG-1003")


BAD_SESSION_IDS = (
    "x",
    "tmss-",
    "01arz3ndektsv4rrffq69g5fav",
    "tmss-81arz3ndektsv4rrffq69g5fav",  # more than 128 bits
    "tmss-01arz3ndektsv4rrffq69g5fau",  # u is no Crockford letter
    "tmss-01arz3ndektsv4rrffq69g5fa",
    "tmss-01arz3ndektsv4rrffq69g5favv",
    "tmss_01arz3ndektsv4rrffq69g5fav",
    "tmak-01arz3ndektsv4rrffq69g5fav",
    "tmss-%E2%84%AAarz3ndektsv4rrffq69g5fav",
    "tmss-01arz3ndektsv4rrffq69g5fa%00",
    "tmss%2D01arz3ndektsv4rrffq69g5fav%20",
    TOKEN,
    "a" * 2000,
)


@by_name([case for case in CASES if "{session_id}" in case.template])
def test_bad_and_unknown_session_ids(world: World, case: Case) -> None:
    for text in BAD_SESSION_IDS:
        answer = world.ask(case.method, case.path.replace("{session_id}", text), case.body)
        answer.refused("TM-ARG-1001")
        assert TOKEN.encode() not in answer.body
    for text in (UNKNOWN_SESSION, UNKNOWN_SESSION.upper()):
        world.ask(case.method, case.path.replace("{session_id}", text), case.body).refused("TM-SESS-4040")


def test_bad_and_unknown_key_ids(world: World) -> None:
    for text in ("x", "tmak-", UNKNOWN_SESSION, "tmak-" + "u" * 26, "a" * 2000):
        world.ask("POST", f"/admin/v1/keys/{text}/status", {"status": "active"}).refused("TM-ARG-1001")
    world.ask("POST", f"/admin/v1/keys/{UNKNOWN_KEY}/status", {"status": "disabled"}).refused("TM-ADMIN-4041")


def test_bad_percent_encoding(world: World) -> None:
    for text in ("%", "%4", "%zz", "%FF", "%C0%80", "%ED%A0%80"):
        answer = world.ask("POST", f"/users/{text}/sessions/revoke", {})
        assert answer.status == 400, answer
        answer.refused(answer.json["code"])


def test_request_ids(world: World) -> None:
    for kept in ("a", "A.b_c-9", "x" * 64):
        answer = world.ask("GET", "/nope", headers={"X-Request-ID": kept})
        assert answer.json["request_id"] == answer.headers["x-request-id"] == kept
    for replaced in (TOKEN, f"x-{TOKEN.upper()}", "0aF9" * 16, "x" * 65, "a b", "a/b", "é".encode().decode("latin-1"), ""):
        answer = world.ask("GET", "/nope", headers={"X-Request-ID": replaced})
        assert answer.json["request_id"] == answer.headers["x-request-id"] != replaced
        assert answer.json["request_id"].startswith("req-")
