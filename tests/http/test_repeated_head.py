"""A head that repeats byte for byte is not parsed again, and answers as if it were: everything is still checked each time."""

import pytest

from tests.support.wire import CREDENTIAL, Wire, add_session, ask, canonical, validate
from tokmesh._core.counters import Counter
from tokmesh._core.principal import ApiKey


def test_repeated_head_is_not_parsed_again_and_answers_alike(wire: Wire) -> None:
    tokens = [add_session(wire, number) for number in range(5)]
    connection, transport = wire.connect()
    for number, token in enumerate(tokens):
        (reply,) = ask(connection, transport, validate(canonical(token)))
        session = reply.envelope["data"]["session"]
        assert reply.envelope["data"]["valid"] is True
        assert session["id"] == wire_id(number)
        assert reply.headers["x-request-id"] == reply.envelope["request_id"]
    assert wire.counters.read(Counter.HEAD_PARSED) == 1
    assert wire.counters.read(Counter.HEAD_REPEATED) == 4
    assert wire.counters.read(Counter.VALIDATE_VALID) == 5
    assert wire.counters.read(Counter.AUTH_OK) == 5
    assert not wire.validated, "no canonical body took the general way"


def wire_id(number: int) -> str:
    digits = "0123456789abcdefghjkmnpqrstvwxyz"
    return "tmss-" + "".join(digits[number >> shift & 31] for shift in range(125, -1, -5))


@pytest.mark.parametrize(
    ("change", "code"),
    [("revoked", "TM-TOKN-4012"), ("expired", "TM-TOKN-4011"), ("unknown", "TM-TOKN-4010")],
)
def test_definite_no_on_a_repeated_head(wire: Wire, change: str, code: str) -> None:
    token = add_session(wire, 1, lives_ms=60_000)
    connection, transport = wire.connect()
    (reply,) = ask(connection, transport, validate(canonical(token)))
    assert reply.envelope["data"]["valid"] is True
    if change == "revoked":
        wire.table.revoke((1).to_bytes(16, "big"), wire.clock.now_ms())
    elif change == "expired":
        wire.clock.shift(60_001 - 1000)
        wire.clock.shift(1000)
        wire.authenticator.clock = wire.clock
    else:
        token = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
    (reply,) = ask(connection, transport, validate(canonical(token)))
    assert reply.status == 200
    assert reply.envelope["data"]["valid"] is False
    assert reply.envelope["data"]["error"]["code"] == code


def test_disabled_key_is_refused_on_the_next_repeated_head(wire: Wire) -> None:
    token = add_session(wire, 1)
    connection, transport = wire.connect()
    assert ask(connection, transport, validate(canonical(token)))[0].status == 200
    wire.authenticator.key.set_active(False)
    (reply,) = ask(connection, transport, validate(canonical(token)))
    assert (reply.status, reply.envelope["code"]) == (401, "TM-AUTH-4012")


def test_expired_verification_is_renewed_on_a_repeated_head(wire: Wire) -> None:
    token = add_session(wire, 1)
    connection, transport = wire.connect()
    assert ask(connection, transport, validate(canonical(token)))[0].status == 200
    wire.clock.shift(60_001)
    assert ask(connection, transport, validate(canonical(token)))[0].status == 200
    assert wire.counters.read(Counter.AUTH_OK) == 2


def test_body_that_is_not_canonical_takes_the_general_way(wire: Wire) -> None:
    token = add_session(wire, 1)
    connection, transport = wire.connect()
    spaced = b'{"token": "%b"}' % token.encode()
    for body in (canonical(token), spaced, canonical(token)[:-1] + b"]", canonical(token[:-1] + "!")):
        assert ask(connection, transport, validate(body))[0].status == 200
    assert wire.validated == [spaced, canonical(token)[:-1] + b"]", canonical(token[:-1] + "!")]


def test_head_with_another_credential_is_another_head(wire: Wire) -> None:
    token = add_session(wire, 1)
    connection, transport = wire.connect()
    good = validate(canonical(token))
    bad = good.replace(CREDENTIAL, CREDENTIAL[:-1] + b"X")
    replies = ask(connection, transport, good + good + bad + good)
    assert [reply.status for reply in replies] == [200, 200, 401, 200]
    assert replies[2].headers["www-authenticate"] == "Bearer"


def test_supplied_request_id_is_kept(wire: Wire) -> None:
    token = add_session(wire, 1)
    connection, transport = wire.connect()
    for _ in range(2):
        (reply,) = ask(connection, transport, validate(canonical(token), b"X-Request-ID: abc.DEF-1_2\r\n"))
        assert reply.headers["x-request-id"] == reply.envelope["request_id"] == "abc.DEF-1_2"
    for refused in (b"a b", b"x" * 65, b"\xe9", b""):
        (reply,) = ask(connection, transport, validate(canonical(token), b"X-Request-ID: %b\r\n" % refused))
        assert reply.envelope["request_id"].startswith("req-")


def test_rate_limit_counts_each_request_once(wire: Wire) -> None:
    wire.authenticator.key = ApiKey("tmak-test", "validator", rate_per_second=5)
    token = add_session(wire, 1)
    connection, transport = wire.connect()
    replies = ask(connection, transport, validate(canonical(token)) * 6)
    assert [reply.status for reply in replies] == [200] * 5 + [429]
    assert replies[5].headers["retry-after"] == "1"
