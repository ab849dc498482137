"""Each kind of value: what it accepts, what it refuses and with which code."""

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokmesh.config import values as kinds
from tokmesh.config.values import OUT_OF_RANGE, WRONG_TYPE, Address, BadValue, Kind, show_duration, show_size

BASE = Path("/base")
DURATION = kinds.duration("0ms", "3650d")
SIZE = kinds.size("0", "1TB")
RATE = kinds.rate("0", "1TB")
NUMBER = kinds.integer(-5, 100)
LIST = kinds.networks()


@pytest.mark.parametrize(
    ("kind", "given_value", "expected"),
    [
        (DURATION, "100ms", 100),
        (DURATION, "2h", 7_200_000),
        (DURATION, " 1.5s ", 1500),
        (DURATION, "7d", 604_800_000),
        (DURATION, "0", 0),
        (DURATION, 0, 0),
        (DURATION, "5 m", 300_000),
        (SIZE, "64MB", 64 * 1024 * 1024),
        (SIZE, "1kb", 1024),
        (SIZE, "1KiB", 1024),
        (SIZE, "0.5 MB", 524_288),
        (SIZE, 17, 17),
        (SIZE, "1GB", 1 << 30),
        (SIZE, "12B", 12),
        (SIZE, "3k", 3072),
        (RATE, "20Mbps", 2_500_000),
        (RATE, "1KB/s", 1024),
        (RATE, "1KB", 1024),
        (RATE, 9, 9),
        (RATE, "8bps", 1),
        (NUMBER, "-5", -5),
        (NUMBER, 100, 100),
        (NUMBER, " 7 ", 7),
        (kinds.boolean(), True, True),
        (kinds.boolean(), "Off", False),
        (kinds.boolean(), "yes", True),
        (kinds.boolean(), 0, False),
        (kinds.choice("a", "b", aliases={"c": "b"}), "C", "b"),
        (kinds.number_or("auto", 1, 4), "AUTO", "auto"),
        (kinds.number_or("auto", 1, 4), 3, 3),
        (kinds.fraction(), "0.01", 0.01),
        (kinds.fraction(), 1, 1.0),
        (kinds.address(), "127.0.0.1:5080", Address("127.0.0.1", 5080)),
        (kinds.address(), "[::1]:0", Address("::1", 0)),
        (kinds.address(), "localhost:1", Address("localhost", 1)),
        (kinds.address(), "my-host.example:65535", Address("my-host.example", 65535)),
        (LIST, "[]", ()),
        (LIST, "", ()),
        (LIST, [], ()),
        (LIST, "10.0.0.0/8, ::1", (ip_network("10.0.0.0/8"), ip_network("::1"))),
        (LIST, ["192.168.1.7"], (ip_network("192.168.1.7/32"),)),
        (kinds.texts("x"), "a,b", ("a", "b")),
        (kinds.directory(), "x/y", Path("/base/x/y")),
        (kinds.directory(), "/x", Path("/x")),
        (kinds.optional_file(), "", None),
        (kinds.optional_file(), "f", Path("/base/f")),
    ],
)
def test_accepted(kind: Kind, given_value: object, expected: object) -> None:
    value = kind.parse(given_value, BASE)
    assert value == expected
    assert kind.parse(kind.show(value), BASE) == value


@pytest.mark.parametrize(
    ("kind", "given_value", "code"),
    [
        (DURATION, "30", WRONG_TYPE),
        (DURATION, 30, WRONG_TYPE),
        (DURATION, "1w", WRONG_TYPE),
        (DURATION, "1M", WRONG_TYPE),
        (DURATION, "-1s", WRONG_TYPE),
        (DURATION, "1e3s", WRONG_TYPE),
        (DURATION, "0.5ms", OUT_OF_RANGE),
        (DURATION, "9999d", OUT_OF_RANGE),
        (DURATION, True, WRONG_TYPE),
        (DURATION, [1], WRONG_TYPE),
        (DURATION, "", WRONG_TYPE),
        (DURATION, "٣s", WRONG_TYPE),
        (SIZE, "64XB", WRONG_TYPE),
        (SIZE, "2TB", OUT_OF_RANGE),
        (SIZE, "0.5B", OUT_OF_RANGE),
        (SIZE, "1" * 40, WRONG_TYPE),
        (RATE, "1Mb", WRONG_TYPE),
        (RATE, "fast", WRONG_TYPE),
        (NUMBER, "101", OUT_OF_RANGE),
        (NUMBER, "-6", OUT_OF_RANGE),
        (NUMBER, "1.0", WRONG_TYPE),
        (NUMBER, "0x10", WRONG_TYPE),
        (NUMBER, True, WRONG_TYPE),
        (NUMBER, "1_0", WRONG_TYPE),
        (NUMBER, "٣", WRONG_TYPE),
        (NUMBER, {"a": 1}, WRONG_TYPE),
        (kinds.boolean(), "maybe", WRONG_TYPE),
        (kinds.boolean(), 2, WRONG_TYPE),
        (kinds.boolean(), None, WRONG_TYPE),
        (kinds.choice("a", "b"), "c", OUT_OF_RANGE),
        (kinds.number_or("auto", 1, 4), 5, OUT_OF_RANGE),
        (kinds.number_or("auto", 1, 4), "some", WRONG_TYPE),
        (kinds.fraction(), "1.1", OUT_OF_RANGE),
        (kinds.fraction(), "-0.1", WRONG_TYPE),
        (kinds.fraction(), "nan", WRONG_TYPE),
        (kinds.address(), "127.0.0.1", WRONG_TYPE),
        (kinds.address(), ":80", WRONG_TYPE),
        (kinds.address(), "a:b", WRONG_TYPE),
        (kinds.address(), "1.2.3.4:70000", OUT_OF_RANGE),
        (kinds.address(), "::1:80", WRONG_TYPE),
        (kinds.address(), "[1.2.3.4]:80", WRONG_TYPE),
        (kinds.address(), "1.2.3.400:80", WRONG_TYPE),
        (kinds.address(), "http://x:80", WRONG_TYPE),
        (kinds.address(), 5080, WRONG_TYPE),
        (LIST, "10.0.0.1/8", WRONG_TYPE),
        (LIST, "x", WRONG_TYPE),
        (LIST, "10.0.0.1,,", WRONG_TYPE),
        (LIST, {"a": 1}, WRONG_TYPE),
        (LIST, ["::1"] * 1025, OUT_OF_RANGE),
        (kinds.directory(), "", OUT_OF_RANGE),
        (kinds.directory(), "a\0b", OUT_OF_RANGE),
        (kinds.pattern("a+", "x"), "b", OUT_OF_RANGE),
    ],
)
def test_refused(kind: Kind, given_value: object, code: str) -> None:
    with pytest.raises(BadValue) as caught:
        kind.parse(given_value, BASE)
    assert caught.value.code == code


@given(st.integers(0, 10**11))
def test_durations_and_sizes_survive_being_shown(value: int) -> None:
    assert DURATION.parse(show_duration(value), BASE) == value
    assert SIZE.parse(show_size(value), BASE) == value


ANYTHING: Any = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5)


@given(ANYTHING)
def test_no_value_raises_anything_but_bad_value(value: object) -> None:
    for kind in (
        DURATION,
        SIZE,
        RATE,
        NUMBER,
        LIST,
        kinds.boolean(),
        kinds.address(),
        kinds.fraction(),
        kinds.directory(),
        kinds.optional_file(),
        kinds.texts("x"),
        kinds.number_or("auto", 1, 2),
        kinds.choice("a"),
    ):
        try:
            kind.parse(value, BASE)
        except BadValue as error:
            assert error.code in (WRONG_TYPE, OUT_OF_RANGE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("example:1", False),
    ],
)
def test_loopback(text: str, expected: bool) -> None:
    assert kinds.address().parse(text, BASE).is_loopback is expected
