"""When a stream is held for lost: it was made anew, or answers for long, and all the time, that it ends before what is known. And
when a record is held for dropped."""

import asyncio
import time
from typing import Any

import pytest

from tokmesh._core.table import Table
from tokmesh.cluster import stream as module
from tokmesh.cluster.link import LinkDown
from tokmesh.cluster.stream import Stream, StreamLost
from tokmesh.cluster.subjects import Subjects
from tokmesh.following import Following
from tokmesh.log.record import StreamBound

CREATED = "2026-01-01T00:00:00.5Z"
CREATED_NS = 1_767_225_600_500_000_000
BEHIND_S = 0.2


class FakeLink:
    """Answers with the sequence that it is given; None: not at all."""

    def __init__(self) -> None:
        self.last_sequence: int | None = 100
        self.created = CREATED
        self.leader: str | None = "a"
        self.silent_ns: tuple[int, ...] = ()  # of the stream's other servers
        self.subjects: dict[str, int] = {}

    async def ask(self, name: str, body: object, timeout_s: float = 2.0) -> dict[str, Any]:
        if self.last_sequence is None:
            raise LinkDown("no answer")
        cluster = {"leader": self.leader, "replicas": [{"name": "b", "active": silent_ns} for silent_ns in self.silent_ns]}
        state = {"last_seq": self.last_sequence, "last_ts": self.created, "messages": 1, "subjects": self.subjects}
        return {"created": self.created, "config": {}, "state": state, "cluster": cluster}


@pytest.fixture
def following() -> Following:
    made = Following(Table(tombstone_ttl_ms=600_000, seed=bytes(16)))
    made.bind(StreamBound(1, bytes(16), CREATED_NS, 100))
    return made


def told(link: FakeLink, stream: Stream, following: Following, last_sequence: int | None) -> str:
    """What comes of an answer."""
    link.last_sequence = last_sequence
    try:
        asyncio.run(stream.verify(following))
    except (LinkDown, StreamLost) as error:
        return type(error).__name__
    return ""


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> FakeLink:
    monkeypatch.setattr(module, "BEHIND_S", BEHIND_S)
    return FakeLink()


def test_a_stream_made_anew_is_lost_at_once(link: FakeLink, following: Following) -> None:
    link.created = CREATED.replace(".5Z", ".6Z")
    assert told(link, Stream(link, Subjects("a"), 3), following, 100) == "StreamLost"  # type: ignore[arg-type]


def test_a_stream_that_ends_too_early_is_lost_when_it_says_so_for_long(link: FakeLink, following: Following) -> None:
    stream = Stream(link, Subjects("a"), 3)  # type: ignore[arg-type]
    assert told(link, stream, following, 100) == ""
    assert told(link, stream, following, 99) == "LinkDown"
    time.sleep(BEHIND_S)
    assert told(link, stream, following, 99) == "StreamLost"


@pytest.mark.parametrize(
    ("leader", "silent_ns", "expected"),
    [
        ("a", (1, module.HEARD_WITHIN_NS), "StreamLost"),
        ("a", (module.HEARD_WITHIN_NS,) * 2, "LinkDown"),
        ("a", (0, 0), "LinkDown"),  # it has heard none of them yet
        (None, (1, 1, 0), "LinkDown"),  # there is no leader: any server answers, by what it has
    ],
)
def test_a_server_that_hears_no_majority_is_not_believed_however_long_it_says_so(
    link: FakeLink, following: Following, leader: str | None, silent_ns: tuple[int, ...], expected: str
) -> None:
    """It was cut off, with less than others have, and a busy one goes on claiming to lead for longer than the time for that."""
    stream, link.leader, link.silent_ns = Stream(link, Subjects("a"), 3), leader, silent_ns  # type: ignore[arg-type]
    assert told(link, stream, following, 99) == "LinkDown"
    time.sleep(BEHIND_S)
    assert told(link, stream, following, 99) == expected


@pytest.mark.parametrize("between", [100, None], ids=["a right one", "none"])
def test_two_answers_of_servers_that_led_no_more_are_not_one_long_one(
    link: FakeLink, following: Following, between: int | None
) -> None:
    stream = Stream(link, Subjects("a"), 3)  # type: ignore[arg-type]
    assert told(link, stream, following, 99) == "LinkDown"
    told(link, stream, following, between)
    time.sleep(BEHIND_S)
    assert told(link, stream, following, 99) == "LinkDown"


@pytest.mark.parametrize(
    ("last_sequence", "subjects", "is_dropped"),
    [(100, {}, True), (99, {}, False), (100, {"subject": 1}, False)],
    ids=["gone", "a server that led no more, which lacks it", "there"],
)
def test_a_record_is_dropped_where_a_server_has_come_that_far_and_has_none(
    link: FakeLink, last_sequence: int, subjects: dict[str, int], is_dropped: bool
) -> None:
    link.last_sequence, link.subjects = last_sequence, subjects
    stream = Stream(link, Subjects("a"), 3)  # type: ignore[arg-type]
    assert asyncio.run(stream.has_dropped("subject", 100)) is is_dropped
