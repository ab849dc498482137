"""Every route doing its job, in the order a session's life takes."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.http.client import Answer
from tests.http.world import TOKEN, UNKNOWN_KEY, World, start_world

SESSION_FIELDS = [
    "id",
    "user_id",
    "device_id",
    "ip_address",
    "user_agent",
    "last_access_ip",
    "last_access_ua",
    "created_by",
    "created_at",
    "expires_at",
    "last_active",
    "data",
    "version",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = start_world(tmp_path_factory.mktemp("lifecycle"))
    try:
        yield world
    finally:
        world.process.stop()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def create(world: World, **fields: Any) -> dict[str, Any]:
    created = world.ask("POST", "/sessions", fields, key="issuer").data
    assert isinstance(created, dict)
    return created


def validate(world: World, token: str, **fields: Any) -> dict[str, Any]:
    verdict = world.ask("POST", "/tokens/validate", {"token": token, **fields}, key="validator").data
    assert isinstance(verdict, dict)
    return verdict


def post(world: World, path: str, body: dict[str, Any] | None = None) -> Answer:
    return world.ask("POST", path, body, key="issuer")


def test_the_life_of_a_session(world: World) -> None:
    before_ms = now_ms()
    created = create(
        world,
        user_id="alice",
        device_id="phone",
        ip_address="192.0.2.7",
        user_agent='A "quoted" agent: ü',
        ttl_seconds=600,
        data={"theme": "dark", "naïve": '"\\'},
    )
    assert set(created) == {"session_id", "token", "expires_at"}
    session_path = f"/sessions/{created['session_id']}"

    verdict = validate(world, created["token"])
    assert verdict["valid"] is True
    session = verdict["session"]
    assert list(session) == SESSION_FIELDS
    assert session == {
        "id": created["session_id"],
        "user_id": "alice",
        "device_id": "phone",
        "ip_address": "192.0.2.7",
        "user_agent": 'A "quoted" agent: ü',
        "last_access_ip": "192.0.2.7",
        "last_access_ua": 'A "quoted" agent: ü',
        "created_by": world.keys["issuer"].split(":")[0],
        "created_at": session["created_at"],
        "expires_at": session["created_at"] + 600_000,
        "last_active": session["created_at"],
        "data": {"theme": "dark", "naïve": '"\\'},
        "version": 1,
    }
    assert before_ms - 1000 <= session["created_at"] <= now_ms() + 1000
    # A body that is not written the usual way gets the same verdict.
    odd = world.ask("POST", "/tokens/validate", f'{{ "touch":false, "token" : "{created["token"]}" }}', key="validator")
    assert odd.data == verdict
    assert world.ask("GET", session_path.upper().replace("/SESSIONS", "/sessions")).data == {"session": session}

    time.sleep(0.005)
    touched = post(world, session_path + "/touch", {"ip_address": "192.0.2.8", "user_agent": "other"}).data["session"]
    assert touched["last_active"] > session["last_active"]
    assert (touched["last_access_ip"], touched["last_access_ua"]) == ("192.0.2.8", "other")
    assert (touched["ip_address"], touched["version"]) == ("192.0.2.7", 1)
    some = post(world, session_path + "/touch", {"fields": ["last_active", "id"]}).data["session"]
    assert list(some) == ["id", "last_active"] and some["last_active"] >= touched["last_active"]
    assert list(post(world, session_path + "/touch").data["session"]) == SESSION_FIELDS

    renewed = post(world, session_path + "/renew", {"ttl_seconds": 1200}).data
    assert set(renewed) == {"new_expires_at"} and renewed["new_expires_at"] > session["expires_at"]
    assert post(world, session_path + "/update", {"data": {"a": "b"}, "if_version": 2}).data == {"version": 3}
    assert post(world, session_path + "/update", {"data": {"a": "c"}, "if_version": 2}).refused("TM-SESS-4091")
    assert post(world, session_path + "/update", {"data": {}}).data == {"version": 4}

    rotated = post(world, "/tokens/rotate", {"token": created["token"], "grace_seconds": 60}).data
    assert set(rotated) == {"token", "expires_at", "old_valid_until"}
    assert rotated["expires_at"] == renewed["new_expires_at"]
    assert validate(world, created["token"])["session"]["id"] == created["session_id"]
    assert validate(world, rotated["token"])["session"]["version"] == 5

    assert post(world, session_path + "/revoke", {"sync": True}).data == {"revoked_count": 1}
    assert post(world, session_path + "/revoke").data == {"revoked_count": 0}
    refused = validate(world, rotated["token"])
    assert refused == {"valid": False, "error": {"code": "TM-TOKN-4012", "message": "Token revoked"}}
    world.ask("GET", session_path).refused("TM-SESS-4040")
    for path, body in (("touch", {}), ("renew", {"ttl_seconds": 5}), ("update", {"data": {}})):
        post(world, f"{session_path}/{path}", body).refused("TM-SESS-4040")
    post(world, "/tokens/rotate", {"token": rotated["token"]}).refused("TM-TOKN-4012")


def test_the_grace_of_a_rotated_token_ends(world: World) -> None:
    created = create(world, user_id="rotating")
    rotated = post(world, "/tokens/rotate", {"token": created["token"], "grace_seconds": 1}).data
    time.sleep(max(0.0, rotated["old_valid_until"] / 1000 - time.time()) + 0.05)
    assert validate(world, created["token"])["error"]["code"] == "TM-TOKN-4011"
    assert validate(world, rotated["token"])["session"]["id"] == created["session_id"]


def test_an_expired_session(world: World) -> None:
    created = create(world, user_id="brief", ttl_seconds=1)
    idle = create(world, user_id="brief", idle_seconds=1)
    time.sleep(1.05)
    for gone in (created, idle):
        assert validate(world, gone["token"])["error"]["code"] == "TM-TOKN-4011"
        world.ask("GET", f"/sessions/{gone['session_id']}").refused("TM-SESS-4041")
        post(world, f"/sessions/{gone['session_id']}/touch").refused("TM-SESS-4041")
        post(world, f"/sessions/{gone['session_id']}/renew", {"ttl_seconds": 60}).refused("TM-SESS-4041")
        post(world, "/tokens/rotate", {"token": gone["token"]}).refused("TM-TOKN-4011")
    assert world.ask("GET", "/sessions?user_id=brief").data["total_items"] == 0


def test_an_unknown_and_a_malformed_token(world: World) -> None:
    assert validate(world, TOKEN)["error"] == {"code": "TM-TOKN-4010", "message": "Token unknown"}
    for malformed in ("", "x", TOKEN[:-1], TOKEN[:-1] + "!", "ü" * 48):
        world.ask("POST", "/tokens/validate", {"token": malformed}).refused("TM-TOKN-4000")
        post(world, "/tokens/rotate", {"token": malformed}).refused("TM-TOKN-4000")
    post(world, "/tokens/rotate", {"token": TOKEN}).refused("TM-TOKN-4010")


def test_a_batch_answers_in_order(world: World) -> None:
    created = [create(world, user_id="batch", data={"n": str(number)}) for number in range(3)]
    post(world, f"/sessions/{created[1]['session_id']}/revoke").data  # noqa: B018 - checks
    tokens = [created[0]["token"], TOKEN, created[1]["token"], "nonsense", created[2]["token"]]
    before = [world.metric(f'tokmesh_token_validate_calls_total{{result="{name}"}}') for name in ("valid", "invalid")]
    body = {"tokens": tokens, "touch": True}
    results = world.ask("POST", "/tokens/validate/batch", body, key="validator").data["results"]
    after = [world.metric(f'tokmesh_token_validate_calls_total{{result="{name}"}}') for name in ("valid", "invalid")]
    assert [result["valid"] for result in results] == [True, False, False, False, True]
    assert [result["error"]["code"] for result in results[1:4]] == ["TM-TOKN-4010", "TM-TOKN-4012", "TM-TOKN-4000"]
    assert results[0] == validate(world, tokens[0])
    assert [result["session"]["data"]["n"] for result in (results[0], results[4])] == ["0", "2"]
    assert [value - start for value, start in zip(after, before, strict=True)] == [2, 3]


def test_revoking_a_user(world: World) -> None:
    created = [create(world, user_id="bob/b ü") for _ in range(3)]
    path = "/users/bob%2Fb%20%C3%BC/sessions/revoke"
    kept = created[1]["session_id"]
    assert post(world, path, {"except_session_id": kept.upper()}).data == {"revoked_count": 2}
    assert [validate(world, one["token"])["valid"] for one in created] == [False, True, False]
    assert post(world, path).data == {"revoked_count": 1}
    assert post(world, path).data == {"revoked_count": 0}


def test_lists(world: World) -> None:
    created = []
    for number in range(7):
        created.append(
            create(world, user_id="lister", device_id=f"d{number % 2}", ip_address=f"198.51.100.{number}")["session_id"]
        )
        time.sleep(0.002)

    def listed(query: str) -> dict[str, Any]:
        page = world.ask("GET", f"/sessions?user_id=lister&{query}", key="issuer").data
        assert isinstance(page, dict)
        return page

    def ids(query: str) -> list[str]:
        return [item["id"] for item in listed(query)["items"]]

    assert ids("sort_order=asc") == created
    assert ids("sort_by=created_at&sort_order=desc") == ids("size=100") == created[::-1]
    assert listed("size=3")["total_items"] == 7
    assert ids("sort_order=asc&size=3&page=2") == created[3:6]
    assert ids("sort_order=asc&size=3&page=9") == []
    assert ids("sort_order=asc&device_id=d1") == created[1::2]
    assert ids("sort_order=asc&ip_address=198.51.100.4") == [created[4]]
    assert ids("sort_order=asc&ip_address=198.51.100.0/30") == created[:4]
    assert ids(f"sort_order=asc&key_id={world.keys['issuer'].split(':')[0]}") == created
    assert ids(f"key_id={world.keys['admin'].split(':')[0]}") == []
    times = [item["created_at"] for item in listed("sort_order=asc")["items"]]
    assert ids(f"sort_order=asc&time_range_start={times[2]}&time_range_end={times[4]}") == created[2:5]
    assert ids(f"active_after={times[-1] + 60_000}") == []
    some = listed("fields=version,id&size=1&sort_order=asc")["items"]
    assert some == [{"id": created[0], "version": 1}]
    assert list(listed("size=1")["items"][0]) == SESSION_FIELDS

    walked: list[str] = []
    page = listed("size=3")
    for _ in range(10):
        walked += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        page = listed(f"size=3&cursor={page['next_cursor']}")
    assert walked == created[::-1]
    everybody = world.ask("GET", "/sessions?device_id=d0&size=100").data
    assert {item["id"] for item in everybody["items"]} == set(created[::2])


def test_keys(world: World) -> None:
    expires_at = now_ms() + 3_600_000
    fields = {"description": "café", "allowedlist": ["127.0.0.0/8"], "rate_limit": 1000, "expires_at": expires_at}
    created = world.ask("POST", "/admin/v1/keys", {"role": "validator", **fields}).data
    assert set(created) == {"key_id", "key_secret", "warning"}
    credential = f"{created['key_id']}:{created['key_secret']}"
    world.keys["made"] = credential
    items = world.ask("GET", "/admin/v1/keys").data["items"]
    [shown] = [item for item in items if item["key_id"] == created["key_id"]]
    assert shown == {
        "key_id": created["key_id"],
        "role": "validator",
        **fields,
        "created_at": shown["created_at"],
        "status": "active",
    }
    assert created["key_secret"] not in str(items)
    assert world.ask("POST", "/tokens/validate", {"token": TOKEN}, key="made").data["valid"] is False
    both = {"X-API-Key": credential}
    assert world.ask("POST", "/tokens/validate", {"token": TOKEN}, key="made", headers=both).status == 200
    assert world.ask("POST", "/tokens/validate", {"token": TOKEN}, key=None, headers=both).status == 200
    path = f"/admin/v1/keys/{created['key_id'].upper()}/status"
    assert world.ask("POST", path, {"status": "disabled"}).data == {"key_id": created["key_id"], "status": "disabled"}
    world.ask("POST", "/tokens/validate", {"token": TOKEN}, key="made").refused("TM-AUTH-4012")
    assert world.ask("POST", path, {"status": "active"}).data["status"] == "active"
    assert world.ask("POST", "/tokens/validate", {"token": TOKEN}, key="made").status == 200


def test_lists_of_keys(world: World) -> None:
    everything = world.ask("GET", "/admin/v1/keys?size=100").data
    assert everything["total_items"] == len(everything["items"]) and everything["next_cursor"] is None
    walked: list[str] = []
    page = world.ask("GET", "/admin/v1/keys?size=2").data
    for _ in range(100):
        walked += [item["key_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        page = world.ask("GET", f"/admin/v1/keys?size=2&cursor={page['next_cursor']}").data
    assert walked == [item["key_id"] for item in everything["items"]]
    second = world.ask("GET", "/admin/v1/keys?size=2&page=2").data["items"]
    assert [item["key_id"] for item in second] == walked[2:4]
    world.ask("GET", "/admin/v1/keys?page=1&cursor=x").refused("TM-ARG-1003")
    world.ask("GET", "/admin/v1/keys?cursor=x").refused("TM-ARG-1001")
    assert world.ask("GET", f"/admin/v1/keys?cursor={UNKNOWN_KEY}").data["items"] == []


def test_a_key_from_elsewhere(world: World) -> None:
    world.keys["elsewhere"] = world.create_key("validator", allowedlist=["192.0.2.0/24"])[1]
    world.ask("POST", "/tokens/validate", {"token": TOKEN}, key="elsewhere").refused("TM-AUTH-4031")


def test_a_key_that_asks_too_often(world: World) -> None:
    world.keys["slow"] = world.create_key("validator", rate_limit=1)[1]
    answers = [world.ask("POST", "/tokens/validate", {"token": TOKEN}, key="slow") for _ in range(5)]
    assert answers[0].status == 200
    limited = [answer for answer in answers if answer.status != 200]
    assert limited
    for answer in limited:
        answer.refused("TM-SYS-4290")


def test_probes(world: World) -> None:
    assert world.ask("GET", "/health", key=None).data == {"status": "ok"}
    for path in ("/ready", "/ready?verbose", "/ready?verbose=true", "/ready?verbose=false"):
        assert world.ask("GET", path, key=None).data == {"status": "ready"}
        assert world.ask("GET", path).data == {"status": "ready"}
    world.ask("GET", "/ready?verbose=maybe", key=None).refused("TM-ARG-1001")


def test_metrics(world: World) -> None:
    answer = world.ask("GET", "/metrics", key="metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith(("text/plain", "application/openmetrics-text"))
    assert b"tokmesh_sessions_active_total" in answer.body
    opened = world.ask("GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert opened.headers["content-type"].startswith("application/openmetrics-text")
    assert opened.body.endswith(b"# EOF\n")
