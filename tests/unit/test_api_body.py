"""Strict request bodies and query parameters: each fault of form with its code and reason; nothing good refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokmesh.api.body import DEPTH_MAX, BodySpec
from tokmesh.api.query import QuerySpec
from tokmesh.errors import ApiError

SPEC = BodySpec(
    required={"token": str},
    optional={"touch": bool, "ttl_seconds": int, "data": dict, "fields": list},
)
OPTIONAL = BodySpec(optional={"sync": bool})


def refusal(spec: BodySpec, body: bytes) -> tuple[str, dict[str, Any]]:
    with pytest.raises(ApiError) as caught:
        spec.parse(body)
    return caught.value.code, caught.value.details or {}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"nonsense",
        b'{"token":"a"}x',
        b'{"token":"a",}',
        b"{'token':'a'}",
        b'{"token":NaN}',
        b'{"token":"\xff"}',
        b'{"token":"\xc0\x80"}',
        b'{"token":"\\ud800"}',
        b'\xef\xbb\xbf{"token":"a"}',
        b'{"token":"a\x00"}',
        b'{"token":"a"}\x00',
        '{"token":"a"}'.encode("utf-16"),
        b"[" * 1000,
    ],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    assert refusal(SPEC, body) == ("TM-SYS-4000", {"reason": "not_json"})


@pytest.mark.parametrize("body", [b"[]", b'"token"', b"1", b"null", b"true", b'[{"token":"a"}]'])
def test_what_is_not_an_object_is_refused(body: bytes) -> None:
    assert refusal(SPEC, body) == ("TM-SYS-4000", {"reason": "not_an_object"})


def test_an_unknown_field_is_refused_and_named() -> None:
    assert refusal(SPEC, b'{"token":"a","Token":"a"}') == ("TM-SYS-4000", {"reason": "unknown_field", "field": "Token"})


def test_a_secret_in_the_place_of_a_name_is_not_repeated() -> None:
    secret = "tmtk_" + "a" * 43
    code, details = refusal(SPEC, json.dumps({secret: 1}).encode())
    assert (code, details) == ("TM-SYS-4000", {"reason": "unknown_field"})


@pytest.mark.parametrize(
    "body",
    [
        b'{"token":"a","token":"a"}',
        b'{"token":"a","token":"b:c"}',
        b'{"token":"a:b","token":"c"}',
        b'{"token":"a","tok\\u0065n":"b"}',
        b'{"token":"\\u003a","token":"b"}',
        b'{"token":"b","token":"\\u003a"}',
        b'{"token":"b","token":"\\u003A\\u003A"}',
        b'{"token":"b:\\"","token":":\\\\\\u003a"}',
        b'{ "token" : "a" , "token" : "a" }',
        b'{"token":"a","data":{"k":"v","k":"v"}}',
        b'{"token":"a","data":{"k:":"v","k:":"v:"}}',
        b'{"token":"a","data":{"k":"v","\\u006b":"v"}}',
        b'{"token":{"deep":{"a":1,"a":2}},"token":"a"}',
        b'{"token":' + b"[" * 1000 + b"]" * 1000 + b',"token":"a"}',
        b'{"token":[1],"token":[1]}',
    ],
)
def test_a_key_twice_in_one_object_is_refused(body: bytes) -> None:
    assert refusal(SPEC, body) == ("TM-SYS-4000", {"reason": "duplicate_key"})


@pytest.mark.parametrize("opening, closing", [("[", "]"), ('{"a":', "}")])
def test_nesting_is_bounded(opening: str, closing: str) -> None:
    def body(levels: int) -> bytes:
        filler = "" if opening == "[" else "1"
        return ('{"token":' + opening * (levels - 1) + filler + closing * (levels - 1) + "}").encode()

    assert refusal(SPEC, body(DEPTH_MAX))[0] == "TM-ARG-1001"
    assert refusal(SPEC, body(DEPTH_MAX + 1)) == ("TM-SYS-4000", {"reason": "too_deep", "limit": 8})
    for levels in (900, 1024, 1025, 100_000):  # 1024: what the parser reads
        assert refusal(SPEC, body(levels)) == ("TM-SYS-4000", {"reason": "too_deep", "limit": 8})
    for unfinished in (b"[" * 5000, b"[" * 5000 + b"]" * 5000, b'{"token":' * 2000):
        assert refusal(SPEC, unfinished)[1]["reason"] == "too_deep"


def test_of_several_faults_the_first_in_the_order_of_the_reference_is_told() -> None:
    deep = b"[" * DEPTH_MAX + b"]" * DEPTH_MAX
    body = b'{"token":%b,"fields":["a"],"fields":["a"],"other":1}'
    assert refusal(SPEC, body % deep)[1] == {"reason": "unknown_field", "field": "other"}
    body = body.replace(b',"other":1', b"")
    assert refusal(SPEC, body % deep)[1] == {"reason": "too_deep", "limit": 8}
    assert refusal(SPEC, body % b"[]")[1] == {"reason": "duplicate_key"}
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    order = ("not_json", "not_an_object", "unknown_field", "too_deep", "duplicate_key")
    places = [page.index(f"| `{reason}` |") for reason in order]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "field, value",
    [
        ("token", None),
        ("token", 1),
        ("token", []),
        ("token", {}),
        ("touch", "true"),
        ("touch", 1),
        ("touch", None),
        ("ttl_seconds", True),
        ("ttl_seconds", 1.0),
        ("ttl_seconds", "1"),
        ("ttl_seconds", 10**30),
        ("data", []),
        ("data", "x"),
        ("data", {"k": 1}),
        ("data", {"k": None}),
        ("data", {"k": {"k": "v"}}),
        ("fields", "id"),
        ("fields", {"id": "id"}),
        ("fields", ["id", 1]),
        ("fields", [["id"]]),
    ],
)
def test_a_wrong_type_is_refused_and_named(field: str, value: object) -> None:
    code, details = refusal(SPEC, json.dumps({"token": "a", field: value}).encode())
    assert (code, details["field"]) == ("TM-ARG-1001", field)


def test_a_missing_field_is_refused_and_named() -> None:
    assert refusal(SPEC, b"{}") == ("TM-ARG-1002", {"field": "token"})
    assert refusal(SPEC, b'{"touch":true}') == ("TM-ARG-1002", {"field": "token"})


def test_form_comes_before_types_and_types_before_what_is_missing() -> None:
    assert refusal(SPEC, b'{"token":1,"x":1}')[1]["reason"] == "unknown_field"
    assert refusal(SPEC, b'{"touch":1}')[0] == "TM-ARG-1001"


def test_no_bytes_stand_for_no_fields_only_where_none_is_required() -> None:
    assert OPTIONAL.parse(b"") == {}
    assert OPTIONAL.parse(b"{}") == {}
    assert refusal(OPTIONAL, b" ")[1]["reason"] == "not_json"


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [":", '":', "\\u003a", "a:b", '"']
)


@given(
    fields=st.fixed_dictionaries(
        {"token": texts},
        optional={
            "touch": st.booleans(),
            "ttl_seconds": st.integers(-(2**63), 2**64 - 1),
            "data": st.dictionaries(texts, texts, max_size=4),
            "fields": st.lists(texts, max_size=4),
        },
    ),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 2]),
)
def test_every_good_body_is_accepted_as_it_is(fields: dict[str, Any], ascii_only: bool, indent: int | None) -> None:
    body = json.dumps(fields, ensure_ascii=ascii_only, indent=indent).encode()
    assert SPEC.parse(body) == fields


@given(
    first=texts,
    second=texts,
    data=st.dictionaries(texts, texts, max_size=3),
    inside=st.booleans(),
    ascii_only=st.booleans(),
)
def test_every_duplicate_is_found(
    first: str, second: str, data: dict[str, str], inside: bool, ascii_only: bool
) -> None:
    def dump(value: object) -> str:
        return json.dumps(value, ensure_ascii=ascii_only)

    if inside:
        pairs = "".join(f"{dump(key)}:{dump(value)}," for key, value in data.items() if key != "k")
        body = f'{{"token":{dump(first)},"data":{{{pairs}"k":{dump(first)},"\\u006b":{dump(second)}}}}}'
    else:
        body = f'{{"token":{dump(first)},"data":{dump(data)},"token":{dump(second)}}}'
    assert refusal(SPEC, body.encode())[1] == {"reason": "duplicate_key"}


class Query:
    """The part of a request that QuerySpec reads."""

    def __init__(self, **values: str) -> None:
        self.values = values

    def query_args(self) -> dict[str, str]:
        return self.values


QUERY = QuerySpec({"user_id": str, "page": int})


def test_query_parameters_are_converted() -> None:
    assert QUERY.parse(Query(user_id="a b", page="007")) == {"user_id": "a b", "page": 7}  # type: ignore[arg-type]
    assert QUERY.parse(Query()) == {}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values",
    [{"users": "a"}, {"user_id": ""}, *({"page": text} for text in ("", "-1", "+1", " 1", "1.0", "x", "٣", "1" * 19))],
)
def test_query_faults_are_bad_arguments(values: dict[str, str]) -> None:
    with pytest.raises(ApiError) as caught:
        QUERY.parse(Query(**values))  # type: ignore[arg-type]
    assert caught.value.code == "TM-ARG-1001"
