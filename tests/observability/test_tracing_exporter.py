"""The exporter against receivers that are down, slow, busy or wrong: bounded, counted, and never in anybody's way."""

import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from email.utils import formatdate

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tests.observability.otlp_receivers import FaultyReceiver, faulty_receiver
from tests.support.ports import free_port
from tests.support.waiting import wait_until
from tokmesh.telemetry.tracing.exporter import BATCH_SPANS_MAX, Exporter
from tokmesh.telemetry.tracing.figures import TracingFigures
from tokmesh.telemetry.tracing.otlp import SpanEncoder, rejected_spans
from tokmesh.telemetry.tracing.receiver import ANSWER_BYTES_MAX, RETRY_AFTER_S_MAX, Receiver
from tokmesh.telemetry.tracing.span import INTERNAL, Span, TraceContext


class Rig:
    """An exporter, what it counts, and spans for it. Started at once; closed with what is left dropped."""

    def __init__(self, endpoint: str, *, queue_spans: int = 4096, timeout_s: float = 5.0, start: bool = True) -> None:
        self.figures = TracingFigures()
        self.receiver = Receiver(endpoint, {}, timeout_s, rejected_spans)
        self.exporter = Exporter(
            self.receiver, SpanEncoder((), "1").encode, self.figures, queue_spans_max=queue_spans, interval_s=0.02,
            logger=logging.getLogger("test"), jitter=lambda: 0.0,
        )  # fmt: skip
        self.offered = 0
        if start:
            self.exporter.start()

    def offer(self, count: int = 1) -> None:
        context = TraceContext(b"t" * 16, b"", "", 0, lambda size: b"s" * size, self.exporter.offer)
        for _ in range(count):
            self.offered += 1
            Span(context, "step", INTERNAL, None, self.offered, ()).end(self.offered)

    @property
    def dropped(self) -> dict[str, int]:
        """Reasons that have occurred."""
        return {reason: count for reason, count in self.figures.dropped.items() if count}

    @property
    def failures(self) -> dict[str, int]:
        return {reason: count for reason, count in self.figures.failures.items() if count}

    def close(self, timeout_s: float = 0.0) -> float:
        """Closes within that time; the seconds it took. Every span is then accounted for, once."""
        started_s = time.monotonic()
        self.exporter.close(timeout_s)
        taken_s = time.monotonic() - started_s
        assert self.figures.exported + sum(self.figures.dropped.values()) == self.offered
        assert self.figures.queued == 0
        return taken_s


def listening_socket() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def url_of(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(name="receiver")
def _receiver() -> Iterator[FaultyReceiver]:
    with faulty_receiver() as receiver:
        yield receiver


def test_spans_arrive_in_batches_of_bounded_size_and_order(receiver: FaultyReceiver) -> None:
    with closing(Rig(receiver.endpoint)) as rig:
        rig.offer(3 * BATCH_SPANS_MAX + 1)
        wait_until(lambda: rig.figures.exported == rig.offered, "all exported")
        assert [span.start_time_unix_nano for span in receiver.spans()] == list(range(1, rig.offered + 1))
        assert len(receiver.requests) >= 4
        assert (rig.dropped, rig.failures) == ({}, {})


@pytest.mark.parametrize("queue_spans", [64, 600])
def test_a_full_queue_keeps_the_first_and_counts_the_rest(receiver: FaultyReceiver, queue_spans: int) -> None:
    receiver.hold.set()
    with closing(Rig(receiver.endpoint, queue_spans=queue_spans)) as rig:
        rig.offer()
        wait_until(lambda: bool(receiver.requests), "the first span under way")
        rig.offer(queue_spans)
        assert (rig.figures.queued, rig.dropped) == (queue_spans, {})
        rig.offer(5)
        assert (rig.figures.queued, rig.dropped) == (queue_spans, {"queue_full": 5})


def test_offering_never_waits_for_a_receiver_that_never_answers(receiver: FaultyReceiver) -> None:
    receiver.hold.set()
    with closing(Rig(receiver.endpoint, timeout_s=0.3)) as rig:
        rig.offer()
        wait_until(lambda: bool(receiver.requests), "the first span under way")
        started_s = time.thread_time()
        rig.offer(10_000)
        assert time.thread_time() - started_s < 1.0
        wait_until(lambda: rig.failures.get("timeout", 0) >= 1, "a time-out")


def test_a_receiver_that_is_down_costs_no_span_until_the_queue_is_full_and_they_arrive_when_it_is_back() -> None:
    port = free_port()
    with closing(Rig(f"http://127.0.0.1:{port}")) as rig:
        rig.offer(10)
        wait_until(lambda: rig.failures.get("connection", 0) >= 1, "a failed connection")
        assert (rig.figures.exported, rig.dropped) == (0, {})
        with closing(FaultyReceiver(port)) as receiver:
            wait_until(lambda: rig.figures.exported == 10, "all exported")
            assert len(receiver.spans()) == 10


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("as_date", [False, True])
def test_a_busy_receiver_gets_the_same_batch_again_after_the_time_it_asked_for(
    receiver: FaultyReceiver, status: int, as_date: bool
) -> None:
    receiver.status = status
    wait_s = 3 if as_date else 2  # a date has whole seconds: up to one may be gone when it is read
    receiver.headers = {"Retry-After": formatdate(time.time() + wait_s, usegmt=True) if as_date else str(wait_s)}
    with closing(Rig(receiver.endpoint)) as rig:
        rig.offer(3)
        wait_until(lambda: rig.failures == {"busy": 1}, "the first refusal")
        receiver.status, receiver.headers = 200, {}
        wait_until(lambda: rig.figures.exported == 3, "exported at last")
        [first, second] = receiver.requests
    assert first[3] == second[3]
    assert second[0] - first[0] >= 1.9, "sooner than asked"


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (None, None), ("", None), ("soon", None), ("-1", None), ("1.5", None), ("nan", None), ("٣", None), ("0", 0.0), ("17", 17.0),
        ("300", 300.0), ("301", RETRY_AFTER_S_MAX), ("9" * 400, None), ("Thu, 01 Jan 1970 00:16:50 GMT", 10.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("Thu, 01 Jan 2970 00:00:00 GMT", RETRY_AFTER_S_MAX), ("Thu, 99 Foo", None),
    ],
)  # fmt: skip
def test_retry_after_is_read_in_both_forms_and_never_believed_beyond_its_bound(field: str | None, expected: float | None) -> None:
    receiver = Receiver("http://127.0.0.1", {}, 1.0, rejected_spans, wall_s=lambda: 1000.0)
    assert receiver._judge(503, field, b"").retry_after_s == expected


def test_without_retry_after_the_pauses_grow(receiver: FaultyReceiver) -> None:
    receiver.status = 503
    with closing(Rig(receiver.endpoint)) as rig:
        rig.offer()
        wait_until(lambda: len(receiver.requests) >= 3, "three tries")
        times = [request[0] for request in receiver.requests]
    assert times[1] - times[0] >= 0.45 and times[2] - times[1] >= 0.95, "half a second, one, …: with no luck in the jitter"


@pytest.mark.parametrize("status", [301, 400, 401, 404, 413, 500])
def test_what_a_receiver_refuses_for_good_is_dropped_and_not_sent_again(receiver: FaultyReceiver, status: int) -> None:
    receiver.status, receiver.headers = status, {"Location": "http://127.0.0.1:1/"}
    with closing(Rig(receiver.endpoint)) as rig:
        rig.offer(3)
        wait_until(lambda: rig.dropped == {"refused": 3}, "refused")
        assert (rig.failures, len(receiver.requests)) == ({"status": 1}, 1)
        receiver.status = 200
        rig.offer(2)
        wait_until(lambda: rig.figures.exported == 2, "the next batch")


def test_spans_rejected_of_a_batch_that_was_taken_are_counted(receiver: FaultyReceiver) -> None:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = 2
    receiver.answer = answer.SerializeToString()
    with closing(Rig(receiver.endpoint)) as rig:
        rig.offer(5)
        wait_until(lambda: rig.figures.exported == 3, "exported")
        assert (rig.dropped, rig.failures) == ({"rejected": 2}, {})


@pytest.mark.parametrize("count", [-5, 2**62])
def test_a_nonsense_count_of_rejected_spans_breaks_no_figure(receiver: FaultyReceiver, count: int) -> None:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = count
    receiver.answer = answer.SerializeToString()
    with closing(Rig(receiver.endpoint)) as rig:
        rig.offer(5)
        wait_until(lambda: rig.figures.exported + rig.figures.dropped["rejected"] == 5, "accounted for")


# Unknown fields of protobuf, which would be an answer, also when it is cut one byte beyond the bound.
ENDLESS = b"x\x80\x01" + b"xx" * ANSWER_BYTES_MAX


@pytest.mark.parametrize("answer", [b"<html>not OTLP</html>", b"\xff" * 100, ENDLESS])
def test_an_answer_that_is_not_otlp_is_told_and_sending_goes_on(receiver: FaultyReceiver, answer: bytes) -> None:
    receiver.answer = answer
    with closing(Rig(receiver.endpoint)) as rig:
        rig.offer(2)
        wait_until(lambda: rig.failures == {"answer": 1}, "told")
        assert (rig.figures.exported, rig.dropped) == (2, {})
        receiver.answer = b""
        rig.offer(2)
        wait_until(lambda: rig.figures.exported == 4, "the next batch")


@pytest.mark.parametrize(
    "answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 999999 X\r\n\r\n", b"\x16\x03\x01"]
)
def test_a_receiver_that_does_not_speak_http_is_a_failed_connection(answer: bytes) -> None:
    with listening_socket() as listener, closing(Rig(url_of(listener))) as rig:
        rig.offer()
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)
            wait_until(lambda: sum(rig.failures.values()) == 1, "told")
        assert set(rig.failures) <= {"connection", "answer"}


def test_a_receiver_that_drips_its_answer_is_cut_off_in_time() -> None:
    with listening_socket() as listener, closing(Rig(url_of(listener), timeout_s=0.5)) as rig:
        rig.offer()
        connection, _ = listener.accept()
        with connection:
            started_s = time.monotonic()
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while not rig.failures and time.monotonic() - started_s < 20:
                try:
                    connection.sendall(b"X-Drip: drop\r\n")
                except OSError:
                    break
                time.sleep(0.1)
            wait_until(lambda: rig.failures == {"timeout": 1}, "cut off")
            assert time.monotonic() - started_s < 10


def test_a_connection_that_the_receiver_closed_meanwhile_is_made_anew_without_a_failure(receiver: FaultyReceiver) -> None:
    receiver.headers = {"Connection": "keep-alive"}
    with closing(Rig(receiver.endpoint)) as rig:
        rig.offer()
        wait_until(lambda: rig.figures.exported == 1, "the first")
        receiver.close_connections()
        rig.offer()
        wait_until(lambda: rig.figures.exported == 2, "the second")
        assert rig.failures == {}


def test_the_end_sends_what_is_left() -> None:
    with faulty_receiver() as receiver:
        rig = Rig(receiver.endpoint)
        rig.offer(2 * BATCH_SPANS_MAX + 10)
        rig.close(10.0)
        assert rig.figures.exported == rig.offered == len(receiver.spans())


def _hold(receiver: FaultyReceiver) -> None:
    receiver.hold.set()


def _refuse(receiver: FaultyReceiver) -> None:
    receiver.status, receiver.headers = 503, {"Retry-After": "300"}


@pytest.mark.parametrize(("fault", "time_s", "taken_s_max"), [(_hold, 1.5, 2.5), (_hold, 0.0, 1.0), (_refuse, 60.0, 5.0)])
def test_the_end_comes_in_time_whatever_the_receiver_does(
    receiver: FaultyReceiver, fault: Callable[[FaultyReceiver], None], time_s: float, taken_s_max: float
) -> None:
    fault(receiver)
    rig = Rig(receiver.endpoint, timeout_s=30.0)
    rig.offer(700)
    wait_until(lambda: bool(receiver.requests), "a request under way")
    assert rig.close(time_s) < taken_s_max
    assert rig.dropped == {"shutdown": 700}


def test_an_end_before_the_start_is_no_error(receiver: FaultyReceiver) -> None:
    """What kept the server from serving is what is told."""
    rig = Rig(receiver.endpoint, start=False)
    rig.offer(3)
    rig.close(1.0)
    assert rig.dropped == {"shutdown": 3}


def test_what_is_offered_after_the_end_is_counted_as_lost(receiver: FaultyReceiver) -> None:
    rig = Rig(receiver.endpoint)
    rig.close(5.0)
    rig.offer(3)
    assert rig.dropped == {"shutdown": 3}


def test_trouble_is_told_once_and_so_is_its_end(receiver: FaultyReceiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.status, receiver.headers = 503, {"Retry-After": "0"}
    with caplog.at_level(logging.INFO), closing(Rig(receiver.endpoint)) as rig:
        rig.offer()
        wait_until(lambda: len(receiver.requests) >= 5, "five tries")
        receiver.status = 200
        wait_until(lambda: rig.figures.exported == 1, "exported")
    assert [record.message for record in caplog.records] == ["spans cannot be exported", "spans are exported again"]
