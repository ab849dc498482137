"""A node whose knowledge may be out of date answers nothing about sessions, whatever way a request comes; the rest as ever."""

from tests.support.wire import Wire, add_session, ask, canonical, spin, validate
from tokmesh._core.counters import Counter
from tokmesh._core.server import NEVER_NS

SECOND_NS = 1_000_000_000
HEALTH = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_token_is_judged_until_the_moment_and_not_after_it(wire: Wire) -> None:
    token = add_session(wire, 1)
    connection, transport = wire.connect()
    for until_ns, status in (
        (NEVER_NS, 200),  # the first head is parsed, the others are repeated
        (wire.clock.monotonic_ns() + 60 * SECOND_NS, 200),
        (wire.clock.monotonic_ns() - SECOND_NS, 503),
        (0, 503),
        (wire.clock.monotonic_ns() + 60 * SECOND_NS, 200),
    ):
        wire.server.fresh_until_ns = until_ns
        (reply,) = ask(connection, transport, validate(canonical(token)))
        assert reply.status == status, until_ns
        if status == 503:
            assert (reply.envelope["code"], reply.envelope["details"]) == ("TM-CLST-5030", {"reason": "stale"})
            assert reply.headers["retry-after"] == "1"
    assert wire.counters.read(Counter.VALIDATE_VALID) == 3, "no verdict was made that was not given"


def test_the_first_request_of_a_connection_and_a_body_that_is_not_canonical_are_fenced_too(wire: Wire) -> None:
    token = add_session(wire, 1)
    wire.server.fresh_until_ns = 0
    for body in (canonical(token), b'{"token": "%b"}' % token.encode()):
        connection, transport = wire.connect()
        (reply,) = ask(connection, transport, validate(body))
        assert (reply.status, reply.envelope["code"]) == (503, "TM-CLST-5030")
    assert not wire.validated


def test_a_body_that_was_on_its_way_when_the_node_was_fenced_is_not_judged(wire: Wire) -> None:
    message = validate(canonical(add_session(wire, 1)))
    connection, transport = wire.connect()
    connection.data_received(message[:-10])
    wire.server.fresh_until_ns = 0
    (reply,) = ask(connection, transport, message[-10:])
    assert (reply.status, reply.envelope["code"]) == (503, "TM-CLST-5030")


def test_what_says_nothing_of_sessions_is_answered(wire: Wire) -> None:
    wire.server.fresh_until_ns = 0
    connection, transport = wire.connect()
    ask(connection, transport, HEALTH)
    spin(wire.server.loop)
    assert b" 200 " in transport.sent
