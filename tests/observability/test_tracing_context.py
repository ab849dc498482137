"""Trace context as W3C defines it: the cases of the W3C's own test suite, as a table, and what this server adds to them.

Fields come in as on the wire, repeated ones joined as the head joins them. What is asserted is whose trace the span of
the request belongs to, and what other systems' state it keeps.
"""

import pytest

from tests.support.config import load_settings
from tokmesh._core.head import Head
from tokmesh._core.sampling import Sampler, has_parent
from tokmesh.ids import RandomSource
from tokmesh.telemetry.tracing.span import Span
from tokmesh.telemetry.tracing.trace_state import CHARS_MAX, parse_trace_state
from tokmesh.telemetry.tracing.tracer import Tracer

TRACE_ID = "12345678901234567890123456789012"
PARENT_ID = "1234567890123456"
VALID = f"00-{TRACE_ID}-{PARENT_ID}-01"
ALL_KEY_CHARACTERS = "".join(map(chr, range(0x61, 0x7B))) + "0123456789_-*/"
ALL_VALUE_CHARACTERS = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in ",=")
Fields = list[tuple[str, str]]


def span_of(fields: Fields) -> Span:
    """The span that a request with these header fields gets."""
    wire = [(name.encode(), value.encode("latin-1")) for name, value in [("Host", "x"), *fields]]
    head = Head("POST", "/sessions", False, wire, True)
    sampler = Sampler(1)
    ended: list[Span] = []
    tracer = Tracer(sampler, RandomSource().take, ended.append)
    tracer.configure(load_settings().telemetry.tracing)
    trace = tracer.begin("POST", "/sessions", False, head.headers, None, 0)
    trace.answered(200)
    [span] = ended
    return span


def goes_on(fields: Fields) -> bool:
    """Whether the caller's trace goes on; else there is a new one, of a valid id and without any parent or state."""
    span = span_of(fields)
    trace_id = span.context.trace_id.hex()
    if trace_id == TRACE_ID:
        assert span.parent_id.hex() == PARENT_ID and span.is_remote_child
        return True
    assert len(trace_id) == 32 and trace_id != "0" * 32
    assert (span.parent_id, span.is_remote_child, span.context.trace_state) == (b"", False, "")
    return False


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], False),
        ([("traceparent", VALID)], True),
        ([("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-00")], True),
        ([("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-ff")], True),
        ([("traceparent", VALID), ("traceparent", f"00-{TRACE_ID[:-1]}1-{PARENT_ID}-01")], False),
        ([("traceparent", VALID), ("traceparent", VALID)], False),
        ([("trace-parent", VALID)], False),
        ([("trace.parent", VALID)], False),
        ([("TraceParent", VALID)], True),
        ([("TrAcEpArEnT", VALID)], True),
        ([("TRACEPARENT", VALID)], True),
        ([("traceparent", VALID + ".")], False),
        ([("traceparent", VALID + "-")], False),
        ([("traceparent", VALID + "-what-the-future-will-be-like")], False),
        ([("traceparent", f"cc-{TRACE_ID}-{PARENT_ID}-01")], True),
        ([("traceparent", f"cc-{TRACE_ID}-{PARENT_ID}-01-what-the-future-will-be-like")], True),
        ([("traceparent", f"cc-{TRACE_ID}-{PARENT_ID}-01.what-the-future-will-be-like")], False),
        ([("traceparent", f"cc-{TRACE_ID}-{PARENT_ID}-01-a"), ("traceparent", f"cc-{TRACE_ID}-{PARENT_ID}-01-b")], False),
        ([("traceparent", f"ff-{TRACE_ID}-{PARENT_ID}-01")], False),
        ([("traceparent", f"fe-{TRACE_ID}-{PARENT_ID}-01")], True),
        ([("traceparent", f".0-{TRACE_ID}-{PARENT_ID}-01")], False),
        ([("traceparent", f"0.-{TRACE_ID}-{PARENT_ID}-01")], False),
        ([("traceparent", f"CC-{TRACE_ID}-{PARENT_ID}-01")], False),
        ([("traceparent", f"000-{TRACE_ID}-{PARENT_ID}-01")], False),
        ([("traceparent", f"0000-{TRACE_ID}-{PARENT_ID}-01")], False),
        ([("traceparent", f"0-{TRACE_ID}-{PARENT_ID}-01")], False),
        ([("traceparent", f"00-{'0' * 32}-{PARENT_ID}-01")], False),
        ([("traceparent", f"00-.{TRACE_ID[1:]}-{PARENT_ID}-01")], False),
        ([("traceparent", f"00-{TRACE_ID[:-1]}.-{PARENT_ID}-01")], False),
        ([("traceparent", f"00-{TRACE_ID[:-1]}A-{PARENT_ID}-01")], False),
        ([("traceparent", f"00-{TRACE_ID}3-{PARENT_ID}-01")], False),
        ([("traceparent", f"00-{TRACE_ID[:-1]}-{PARENT_ID}-01")], False),
        ([("traceparent", f"00-{TRACE_ID}-{'0' * 16}-01")], False),
        ([("traceparent", f"00-{TRACE_ID}-.{PARENT_ID[1:]}-01")], False),
        ([("traceparent", f"00-{TRACE_ID}-{PARENT_ID[:-1]}.-01")], False),
        ([("traceparent", f"00-{TRACE_ID}-{PARENT_ID[:-1]}F-01")], False),
        ([("traceparent", f"00-{TRACE_ID}-{PARENT_ID}7-01")], False),
        ([("traceparent", f"00-{TRACE_ID}-{PARENT_ID[:-1]}-01")], False),
        ([("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-.0")], False),
        ([("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-0.")], False),
        ([("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-0F")], False),
        ([("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-001")], False),
        ([("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-1")], False),
        ([("traceparent", f"00_{TRACE_ID}-{PARENT_ID}-01")], False),
        ([("traceparent", f"00-{TRACE_ID}_{PARENT_ID}-01")], False),
        ([("traceparent", f"00-{TRACE_ID}-{PARENT_ID}_01")], False),
        ([("traceparent", "")], False),
        ([("traceparent", " " + VALID)], True),
        ([("traceparent", "\t" + VALID)], True),
        ([("traceparent", VALID + " ")], True),
        ([("traceparent", VALID + "\t")], True),
        ([("traceparent", "\t " + VALID + " \t")], True),
        ([("traceparent", "\xe9" * 55)], False),
        ([("traceparent", f"00-{TRACE_ID[:-1]}\xb2-{PARENT_ID}-01")], False),
    ],
)
def test_traceparent_is_followed_if_it_is_valid_and_replaced_if_not(fields: Fields, expected: bool) -> None:
    assert goes_on(fields) is expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["foo=1,bar=2"], "foo=1,bar=2"),
        ([""], ""),
        (["foo=1", ""], "foo=1"),
        (["", "foo=1"], "foo=1"),
        (["foo=1,,bar=2,"], "foo=1,bar=2"),
        (["foo=1,bar=2", "rojo=1,congo=2", "baz=3"], "foo=1,bar=2,rojo=1,congo=2,baz=3"),
        (["foo=1,foo=1"], ""),
        (["foo=1,foo=2"], ""),
        (["foo=1", "foo=1"], ""),
        (["foo=1", "foo=2"], ""),
        ([f"{ALL_KEY_CHARACTERS}={ALL_VALUE_CHARACTERS}"], f"{ALL_KEY_CHARACTERS}={ALL_VALUE_CHARACTERS}"),
        ([f"{ALL_KEY_CHARACTERS}@a-z0-9_-*/={ALL_VALUE_CHARACTERS}"], f"{ALL_KEY_CHARACTERS}@a-z0-9_-*/={ALL_VALUE_CHARACTERS}"),
        (["foo=1 \t , \t bar=2, \t baz=3"], "foo=1,bar=2,baz=3"),
        (["foo=1\t \t,\t \tbar=2,\t \tbaz=3"], "foo=1,bar=2,baz=3"),
        ([" foo=1"], "foo=1"),
        (["\tfoo=1"], "foo=1"),
        (["foo=1 "], "foo=1"),
        (["foo=1\t"], "foo=1"),
        (["\t foo=1 \t"], "foo=1"),
        (["foo =1"], ""),
        (["FOO=1"], ""),
        (["foo.bar=1"], ""),
        (["0foo=1"], ""),
        (["0foo@bar=1"], "0foo@bar=1"),
        (["foo@=1,bar=2"], ""),
        (["@foo=1,bar=2"], ""),
        (["foo@@bar=1,bar=2"], ""),
        (["foo@bar@baz=1,bar=2"], ""),
        (["foo=1", "z" * 256 + "=1"], "foo=1," + "z" * 256 + "=1"),
        (["foo=1", "z" * 257 + "=1"], ""),
        (["foo=1", "t" * 241 + "@" + "v" * 14 + "=1"], "foo=1," + "t" * 241 + "@" + "v" * 14 + "=1"),
        (["foo=1", "t" * 242 + "@v=1"], ""),
        (["foo=1", "t@" + "v" * 15 + "=1"], ""),
        (["foo=bar=baz"], ""),
        (["foo=,bar=3"], ""),
        (["foo=a\x7f"], ""),
        (["foo=" + "v" * 256], "foo=" + "v" * 256),
        (["foo=" + "v" * 257], ""),
        (["no-equals"], ""),
    ],
)  # fmt: skip
def test_tracestate_is_kept_if_it_is_valid_and_dropped_whole_if_not(fields: list[str], expected: str) -> None:
    span = span_of([("traceparent", VALID), *(("TraceState", field) for field in fields)])
    assert span.context.trace_state == expected
    assert span.context.trace_id.hex() == TRACE_ID, "a bad tracestate says nothing against the traceparent"


@pytest.mark.parametrize(("count", "is_kept"), [(32, True), (33, False)])
def test_tracestate_has_at_most_32_members_over_all_its_fields(count: int, is_kept: bool) -> None:
    members = [f"bar{number:02}={number:02}" for number in range(1, count + 1)]
    fields = [("tracestate", ",".join(members[start : start + 10])) for start in range(0, count, 10)]
    assert span_of([("traceparent", VALID), *fields]).context.trace_state == (",".join(members) if is_kept else "")


@pytest.mark.parametrize("fields", [[("tracestate", "foo=1")], [("traceparent", "bad"), ("tracestate", "foo=1,bar=2")]])
def test_tracestate_without_a_valid_traceparent_is_dropped(fields: Fields) -> None:
    assert not goes_on(fields)


@pytest.mark.parametrize("name", ["trace-state", "trace.state"])
def test_tracestate_under_another_name_is_none(name: str) -> None:
    assert span_of([("traceparent", VALID), (name, "foo=1")]).context.trace_state == ""


def test_tracestate_up_to_512_characters_is_kept_as_it_is() -> None:
    state = ",".join(f"k{number}=" + "v" * 100 for number in range(4))
    exact = state + ",z=" + "v" * (CHARS_MAX - len(state) - 3)
    assert len(exact) == 512
    assert parse_trace_state(exact) == exact


def test_beyond_512_characters_long_members_go_first_then_those_at_the_end() -> None:
    short = [f"k{number:02}=" + "v" * 60 for number in range(7)]  # 64 characters each
    assert parse_trace_state(",".join(["long=" + "v" * 130, *short])) == ",".join(short)
    assert parse_trace_state(",".join([*short, "k07=" + "v" * 60])) == ",".join(short)
    longs = [f"l{number}=" + "v" * 125 for number in range(2)]  # 128 characters: not long yet
    assert parse_trace_state(",".join([*longs, *short])) == ",".join([*longs, *short[:3]])


def test_a_secret_in_tracestate_never_reaches_a_span() -> None:
    assert parse_trace_state("foo=tmtk_" + "A" * 43) == ""
    assert parse_trace_state("foo=" + "ab" * 32) == ""
    assert parse_trace_state("foo=tmtk") == "foo=tmtk"


def test_no_traceparent_of_any_length_or_bytes_upsets_the_parser() -> None:
    for size in range(70):
        assert has_parent(VALID[:size]) is (size >= 55)
    for position in range(55):
        for character in "\x00g-/:@`\xff€":
            if VALID[position] != character:
                assert not has_parent(VALID[:position] + character + VALID[position + 1 :]), (position, character)
