"""Every limit at n, which is accepted, and at n + 1, which is refused and changes nothing."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.http.world import TOKEN, World, start_world

BODY_BYTES_MAX = 1 << 20
TTL_SECONDS_MAX = 720 * 3600


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = start_world(tmp_path_factory.mktemp("limits"))
    try:
        yield world
    finally:
        world.process.stop()


def data_of_bytes(size: int) -> dict[str, str]:
    """Data whose compact JSON has exactly `size` bytes, every key and value within its own limit."""
    data = {f"k{number}": "v" * 1024 for number in range(size // 1100)}
    rest = size - len(json.dumps(data, separators=(",", ":"))) - len(',"r":""')
    data["r"] = "v" * rest
    assert len(json.dumps(data, separators=(",", ":"))) == size
    return data


FIELD_LIMITS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("user_id at least", {"user_id": "u"}, {"user_id": ""}),
    ("user_id at most", {"user_id": "u" * 128}, {"user_id": "u" * 129}),
    ("user_id in characters", {"user_id": "ü" * 128}, {"user_id": "😀" * 129}),
    ("device_id", {"device_id": "d" * 128}, {"device_id": "d" * 129}),
    ("ttl at least", {"ttl_seconds": 1}, {"ttl_seconds": 0}),
    ("ttl negative", {"ttl_seconds": 1}, {"ttl_seconds": -1}),
    ("ttl at most", {"ttl_seconds": TTL_SECONDS_MAX}, {"ttl_seconds": TTL_SECONDS_MAX + 1}),
    ("ttl beyond 64 bits", {"ttl_seconds": 1}, {"ttl_seconds": 2**64 - 1}),
    ("idle at least", {"idle_seconds": 1}, {"idle_seconds": 0}),
    ("idle at most", {"idle_seconds": TTL_SECONDS_MAX}, {"idle_seconds": TTL_SECONDS_MAX + 1}),
    ("ip_address", {"ip_address": "2001:db8::1"}, {"ip_address": "300.0.0.1"}),
    ("user_id without controls", {"user_id": "a b"}, {"user_id": "a\nb"}),
    ("device_id without controls", {"device_id": ""}, {"device_id": "\x00"}),
    ("data key at least", {"data": {"k": ""}}, {"data": {"": "v"}}),
    ("data key at most", {"data": {"k" * 64: "v"}}, {"data": {"k" * 65: "v"}}),
    ("data value", {"data": {"k": "v" * 1024}}, {"data": {"k": "v" * 1025}}),
    ("data as JSON", {"data": data_of_bytes(4096)}, {"data": data_of_bytes(4097)}),
]


@pytest.mark.parametrize("good, bad", [row[1:] for row in FIELD_LIMITS], ids=[row[0] for row in FIELD_LIMITS])
def test_fields_of_a_session(world: World, good: dict[str, Any], bad: dict[str, Any]) -> None:
    before = world.state()
    world.ask("POST", "/sessions", {"user_id": "limits", **bad}).refused("TM-SESS-4001")
    assert world.state() == before
    created = world.ask("POST", "/sessions", {"user_id": "limits", **good}).data
    session = world.ask("GET", f"/sessions/{created['session_id']}").data["session"]
    for name in ("user_id", "device_id", "data"):
        assert session[name] == {"user_id": "limits", "device_id": "", "data": {}, **good}[name]
    world.ask("POST", f"/sessions/{created['session_id']}/revoke").data  # noqa: B018 - checks


def test_a_token_brought_by_the_client(world: World) -> None:
    for bad in (
        "",
        TOKEN[:-1],
        TOKEN + "A",
        "tmas_" + "A" * 43,
        TOKEN[:-1] + "=",
        TOKEN[:-1] + "é",
        "TMTK_" + "A" * 43,
    ):
        world.ask("POST", "/sessions", {"user_id": "limits", "token": bad}).refused("TM-TOKN-4000")
    created = world.ask("POST", "/sessions", {"user_id": "limits", "token": TOKEN}).data
    assert created["token"] == TOKEN
    world.ask("POST", "/sessions", {"user_id": "limits", "token": TOKEN}).refused("TM-TOKN-4090")
    assert world.ask("POST", "/tokens/validate", {"token": TOKEN}).data["valid"] is True


def test_a_user_agent_is_cut(world: World) -> None:
    for length in (512, 513):
        created = world.ask("POST", "/sessions", {"user_id": "agents", "user_agent": "a" * length}).data
        session = world.ask("GET", f"/sessions/{created['session_id']}").data["session"]
        assert session["user_agent"] == session["last_access_ua"] == "a" * 512


def test_the_user_of_a_path(world: World) -> None:
    for user in ("u" * 128, "%C3%BC" * 128, "a%2Fb", "%20"):
        assert world.ask("POST", f"/users/{user}/sessions/revoke", {}).data == {"revoked_count": 0}
    for user in ("u" * 129, "%C3%BC" * 129):
        world.ask("POST", f"/users/{user}/sessions/revoke", {}).refused("TM-SESS-4001")


def test_updates_and_renewals_keep_the_rules_of_creation(world: World) -> None:
    path = f"/sessions/{world.session['session_id']}"
    before = world.state()
    for data in ({"k" * 65: "v"}, {"k": "v" * 1025}, data_of_bytes(4097)):
        world.ask("POST", path + "/update", {"data": data}).refused("TM-SESS-4001")
    for ttl_seconds in (0, -1, TTL_SECONDS_MAX + 1):
        world.ask("POST", path + "/renew", {"ttl_seconds": ttl_seconds}).refused("TM-SESS-4001")
    assert world.state() == before
    world.ask("POST", path + "/update", {"data": data_of_bytes(4096)}).data  # noqa: B018 - checks
    world.ask("POST", path + "/renew", {"ttl_seconds": TTL_SECONDS_MAX}).data  # noqa: B018 - checks


def test_versions(world: World) -> None:
    created = world.ask("POST", "/sessions", {"user_id": "versions"}).data
    path = f"/sessions/{created['session_id']}/update"
    for version in (0, 2, 2**63, 2**64 - 1):
        answer = world.ask("POST", path, {"data": {}, "if_version": version})
        assert answer.status in (400, 409)
        answer.refused("TM-SESS-4091" if answer.status == 409 else "TM-ARG-1001")
    assert world.ask("POST", path, {"data": {}, "if_version": 1}).data == {"version": 2}


def test_grace(world: World) -> None:
    token = world.ask("POST", "/sessions", {"user_id": "grace"}).data["token"]
    for bad in (-1, 61):
        answer = world.ask("POST", "/tokens/rotate", {"token": token, "grace_seconds": bad})
        answer.refused("TM-SESS-4001")
    for good in (0, 60):
        token = world.ask("POST", "/tokens/rotate", {"token": token, "grace_seconds": good}).data["token"]


def test_batches(world: World) -> None:
    results = world.ask("POST", "/tokens/validate/batch", {"tokens": [TOKEN[:-1]] * 1000}).data["results"]
    assert len(results) == 1000
    world.ask("POST", "/tokens/validate/batch", {"tokens": [TOKEN] * 1001}).refused("TM-ARG-1001")
    assert world.ask("POST", "/tokens/validate/batch", {"tokens": []}).data == {"results": []}


def test_quota(world: World) -> None:
    for _ in range(50):
        world.ask("POST", "/sessions", {"user_id": "quota"}).data  # noqa: B018 - checks
    world.ask("POST", "/sessions", {"user_id": "quota"}).refused("TM-SESS-4002")
    assert world.ask("GET", "/sessions?user_id=quota").data["total_items"] == 50


def test_a_body_of_exactly_one_megabyte(world: World) -> None:
    body = json.dumps({"token": TOKEN[:-1]}).encode()
    answer = world.ask("POST", "/tokens/validate", body + b" " * (BODY_BYTES_MAX - len(body)))
    answer.refused("TM-TOKN-4000")


LIST_FAULTS = {
    "size=0": "TM-ARG-1001",
    "size=101": "TM-ARG-1001",
    "size=-1": "TM-ARG-1001",
    "size=x": "TM-ARG-1001",
    "size=": "TM-ARG-1001",
    "page=0": "TM-ARG-1001",
    "page=1.5": "TM-ARG-1001",
    "page=1&cursor=x": "TM-ARG-1003",
    "cursor=%00nonsense": "TM-ARG-1001",
    "page=1&page=2": "TM-ARG-1003",
    "page=1&&page=2": "TM-ARG-1003",
    "&=&": "TM-ARG-1001",
    "user_id=": "TM-ARG-1001",
    "sort_by=token": "TM-ARG-1001",
    "sort_order=up": "TM-ARG-1001",
    "fields=id,token": "TM-ARG-1001",
    "fields=id,,data": "TM-ARG-1001",
    "key_id=x": "TM-ARG-1001",
    "ip_address=300.0.0.1": "TM-ARG-1001",
    "ip_address=10.0.0.0/33": "TM-ARG-1001",
    "time_range_start=yesterday": "TM-ARG-1001",
    "time_range_start=2&time_range_end=1": "TM-ARG-1003",
    "active_after=-5": "TM-ARG-1001",
    "User_id=u": "TM-ARG-1001",
    "%75ser_id=" + "u" * 129: "TM-SESS-4001",
}


@pytest.mark.parametrize("query", LIST_FAULTS)
def test_faults_of_a_list(world: World, query: str) -> None:
    world.ask("GET", f"/sessions?{query}").refused(LIST_FAULTS[query])


@pytest.mark.parametrize(
    "query", ["size=1", "size=100", "page=1", "page=999999999", "time_range_start=1&time_range_end=1", "&&&", "&page=1&&size=1&"]
)
def test_limits_of_a_list(world: World, query: str) -> None:
    assert set(world.ask("GET", f"/sessions?{query}").data) == {"items", "total_items", "next_cursor"}


KEY_FAULTS: list[dict[str, Any]] = [
    {"role": "root"},
    {"role": ""},
    {"role": "Admin"},
    {"description": "d" * 257},
    {"allowedlist": ["300.0.0.1"]},
    {"allowedlist": ["10.0.0.0/33"]},
    {"allowedlist": ["192.0.2.1"] * 65},
    {"rate_limit": -1},
    {"rate_limit": 2**63},
    {"expires_at": -1},
    {"expires_at": 1},
    {"expires_at": 2**63},
]


@pytest.mark.parametrize("fields", KEY_FAULTS, ids=lambda fields: json.dumps(fields)[:40])
def test_faults_of_a_new_key(world: World, fields: dict[str, Any]) -> None:
    before = world.state()
    world.ask("POST", "/admin/v1/keys", {"role": "issuer", **fields}).refused("TM-ARG-1001")
    assert world.state() == before


def test_faults_of_a_key_status(world: World) -> None:
    key_id = world.keys["issuer"].split(":")[0]
    before = world.state()
    for status in ("", "Active", "deleted"):
        world.ask("POST", f"/admin/v1/keys/{key_id}/status", {"status": status}).refused("TM-ARG-1001")
    assert world.state() == before
