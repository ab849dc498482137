"""Hostile requests, split at every offset, in memory: the same answers come out whatever the pieces were."""

import asyncio
import logging
from collections.abc import Iterable, Iterator

import pytest

from tests.http.hostile_corpus import LARGE_CASES, SMALL_CASES, Case
from tests.support.answers import split_answers
from tests.support.wire import CREDENTIAL, Wire


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    """One server for all cases: none may change it."""
    loop = asyncio.new_event_loop()
    yield Wire(loop)
    loop.close()


def converse(wire: Wire, pieces: Iterable[bytes]) -> tuple[tuple[tuple[int, str], ...], bool]:
    """(status, code) of every answer to the pieces, and whether the server closed."""
    connection, transport = wire.connect()
    for piece in pieces:
        if not transport.closed:
            connection.data_received(piece)
    wire.server.loop.run_until_complete(asyncio.sleep(0))
    answers = [(reply.status, reply.envelope["code"]) for reply in split_answers(transport.sent)]
    connection.connection_lost(None)
    return tuple(answers), transport.closed


@pytest.mark.parametrize("case", SMALL_CASES, ids=lambda case: case.name)
def test_split_at_every_offset(wire: Wire, case: Case, caplog: pytest.LogCaptureFixture) -> None:
    case = case.with_key(CREDENTIAL)
    with caplog.at_level(logging.WARNING):
        expected = (case.answers, case.closes)
        assert converse(wire, [case.sent]) == expected
        for offset in range(1, len(case.sent)):
            assert converse(wire, [case.sent[:offset], case.sent[offset:]]) == expected, f"split at {offset}"
        assert converse(wire, [bytes([byte]) for byte in case.sent]) == expected, "byte by byte"
    assert not caplog.records, "a hostile request is no fault of ours"


@pytest.mark.parametrize("case", LARGE_CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("pieces", [1, 2, 7, 64])
def test_large_requests_in_pieces(wire: Wire, case: Case, pieces: int) -> None:
    case = case.with_key(CREDENTIAL)
    size = -(-len(case.sent) // pieces)
    sent = [case.sent[at : at + size] for at in range(0, len(case.sent), size)]
    assert converse(wire, sent) == (case.answers, case.closes)


def test_corpus_is_large_enough() -> None:
    names = [case.name for case in SMALL_CASES + LARGE_CASES]
    assert len(names) == len(set(names)) >= 60
