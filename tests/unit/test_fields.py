"""The fields of a body are judged as api/body.py documents it, for any JSON object; and the strings of `data` by their rules."""

import json
import socket
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokmesh._core.fields import Fit, are_plain, broken_rule_of_data, is_ipv4, is_of_kind, judge
from tokmesh.api.body import BodySpec
from tokmesh.errors import ApiError
from tokmesh.sessions.rules import check_device_id, check_user_id, cut_user_agent, encode_data

KINDS: dict[str, type] = {
    "user_id": str, "device_id": str, "ttl_seconds": int, "sync": bool, "data": dict, "fields": list,
}  # fmt: skip
SPEC = BodySpec(required={"user_id": str}, optional={name: kind for name, kind in KINDS.items() if name != "user_id"})
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from([":", '":', "\\u003a", "ü:", '"'])
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | texts
Pairs = list[tuple[str, Any]]


def objects(values: st.SearchStrategy[Any], names: st.SearchStrategy[str]) -> st.SearchStrategy[Pairs]:
    """Objects of JSON as lists of pairs, so that a name can be there twice."""
    return st.lists(st.tuples(names, values), max_size=4)


good = st.one_of(texts, st.integers(0, 9), st.booleans(), objects(texts, texts), st.lists(texts, max_size=3).map(tuple))
nested = st.recursive(
    scalars, lambda inner: objects(inner, texts) | st.lists(inner, max_size=3).map(tuple), max_leaves=8
)
bodies = objects(good | nested, st.sampled_from(list(KINDS)) | texts)


def written(value: Any, ascii_only: bool) -> str:
    """JSON text: a list of pairs is an object, a tuple an array."""
    if isinstance(value, list):
        pairs = (f"{json.dumps(name, ensure_ascii=ascii_only)}:{written(each, ascii_only)}" for name, each in value)
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, tuple):
        return "[" + ",".join(written(each, ascii_only) for each in value) + "]"
    return json.dumps(value, ensure_ascii=ascii_only)


def has_twice(value: Any) -> bool:
    """Whether an object at any depth has a name twice."""
    if isinstance(value, list):
        return len(dict(value)) != len(value) or any(has_twice(each) for _, each in value)
    return isinstance(value, tuple) and any(map(has_twice, value))


def fits(name: str, value: Any) -> bool:
    """Whether the value (objects as pairs) is of the kind of that field."""
    kind = KINDS[name]
    if kind is dict:
        return isinstance(value, list) and all(type(each) is str for _, each in value)
    if kind is list:
        return isinstance(value, tuple) and all(type(each) is str for each in value)
    return type(value) is kind


def documented(pairs: Pairs) -> tuple[str, str | None]:
    """Code and reason, or field, of the first fault in the order that api/body.py states; "OK" without one."""
    if any(name not in KINDS for name, _ in pairs):
        return "TM-SYS-4000", "unknown_field"
    if has_twice(pairs):
        return "TM-SYS-4000", "duplicate_key"
    for name, value in pairs:
        if not fits(name, value):
            return "TM-ARG-1001", name
    return ("OK", None) if any(name == "user_id" for name, _ in pairs) else ("TM-ARG-1002", "user_id")


@settings(max_examples=1500, deadline=None)
@given(bodies, st.booleans())
@example([("user_id", "a"), ("data", [("k", "a:b"), ("k:", "ü:")])], True)
@example([("user_id", "\\u003a"), ("user_id", "b")], False)
@example([("user_id", True)], False)
@example([("ttl_seconds", True), ("user_id", "a")], False)
@example([("user_id", "a"), ("data", [("k", 1)])], False)
@example([("user_id", "a"), ("fields", ("id", 1))], False)
def test_every_body_is_judged_as_documented(pairs: Pairs, ascii_only: bool) -> None:
    body = written(pairs, ascii_only).encode()
    expected = documented(pairs)
    try:
        fields = SPEC.parse(body)
    except ApiError as error:
        details = error.details or {}
        assert (error.code, details.get("reason", details.get("field"))) == expected, body
    else:
        assert expected == ("OK", None), body
        assert fields == json.loads(body)


@pytest.mark.parametrize(
    "fields, body, expected",
    [
        ({}, b"{}", Fit.FIT),
        ({"user_id": "a"}, b'{"user_id":"a"}', Fit.FIT),
        ({"user_id": "a:b"}, b'{"user_id":"a:b"}', Fit.FIT),
        ({"data": {"k:": "v:"}, "fields": [":"]}, b'{"data":{"k:":"v:"},"fields":[":"]}', Fit.FIT),
        ({"users": "a"}, b'{"users":"a"}', Fit.MISFIT),
        ({"ttl_seconds": True}, b'{"ttl_seconds":true}', Fit.MISFIT),
        ({"sync": 1}, b'{"sync":1}', Fit.MISFIT),
        ({"data": {"k": None}}, b'{"data":{"k":null}}', Fit.MISFIT),
        ({"user_id": "b"}, b'{"user_id":"a","user_id":"b"}', Fit.DOUBTFUL),
        ({"user_id": ":"}, b'{"user_id":"\\u003a"}', Fit.FIT),  # as many colons as pairs: none can be missing
        ({"user_id": "::"}, b'{"user_id":"\\u003a:"}', Fit.DOUBTFUL),
        ({"user_id": "\\u003:"}, b'{"user_id":"\\\\u003:"}', Fit.DOUBTFUL),
    ],
)
def test_how_fields_fit(fields: dict[str, Any], body: bytes, expected: Fit) -> None:
    assert judge(fields, KINDS, body) == expected


@pytest.mark.parametrize(
    "value, kind, expected",
    [
        ("", str, True), (1, int, True), (True, int, False), (1, bool, False), (None, str, False), ({}, dict, True),
        ([], list, True), (["a", 1], list, False), ({"a": "b"}, dict, True), ({"a": 1}, dict, False), ({}, list, False),
    ],
)  # fmt: skip
def test_what_is_of_a_kind(value: object, kind: type, expected: bool) -> None:
    assert is_of_kind(value, kind) is expected


@pytest.mark.parametrize(
    "data, rule",
    [
        ({}, None),
        ({"k" * 64: "v" * 1024}, None),
        ({"ü" * 64: "😀" * 1000}, None),  # characters, not bytes
        ({"": "v"}, "keys of 1 to 64 characters"),
        ({"k" * 65: "v"}, "keys of 1 to 64 characters"),
        ({"k": "v" * 1025}, "values of at most 1024 characters"),
        ({"k": 1}, "keys and values are strings"),
        ({1: "v"}, "keys and values are strings"),
        ({"k": "v" * 1025, "": "v"}, "values of at most 1024 characters"),  # the first pair's
    ],
)
def test_the_rules_of_data(data: dict[Any, Any], rule: str | None) -> None:
    assert broken_rule_of_data(data) == rule
    if rule is not None:
        with pytest.raises(ApiError) as caught:
            encode_data(data)
        assert (caught.value.code, caught.value.details) == ("TM-SESS-4001", {"field": "data", "rule": rule})


any_texts = st.text(max_size=6) | st.integers(0, 600).map(lambda size: "x" * size) | st.text("\x00 ~\x7f\x80\ud800", max_size=3)


@given(any_texts, any_texts, any_texts)
@example("u" * 128, "d" * 128, "a" * 512)
def test_texts_that_are_plain_break_no_rule_and_stay_as_they_are(user_id: str, device_id: str, user_agent: str) -> None:
    if are_plain(user_id, device_id, user_agent):
        check_user_id(user_id)
        check_device_id(device_id)
        assert cut_user_agent(user_agent) == user_agent


@pytest.mark.parametrize("text", ["u", " ", "~", "Mozilla/5.0 (X11; Linux)"])
def test_printable_ascii_is_plain(text: str) -> None:
    assert are_plain(text, text, text) and are_plain(text, "", "")


@pytest.mark.parametrize(
    "texts",
    [
        ("", "d", "a"), ("u" * 129, "", ""), ("u", "d" * 129, ""), ("u", "", "a" * 513), ("\x1f", "", ""), ("u", "\x7f", ""),
        ("u", "", "ü"),
    ],
)  # fmt: skip
def test_what_a_rule_must_look_at_is_not_plain(texts: tuple[str, str, str]) -> None:
    assert not are_plain(*texts)


@given(st.ip_addresses(v=4).map(str) | st.text("0123456789.:\x00ü", max_size=16))
@example("1.2.3.4\x00")
@example("01.2.3.4")
@example("1.2.3")
def test_an_ipv4_address_is_what_the_system_takes_for_one(text: str) -> None:
    try:
        expected = bool(socket.inet_pton(socket.AF_INET, text))
    except (OSError, ValueError):
        expected = False
    assert is_ipv4(text) == expected
