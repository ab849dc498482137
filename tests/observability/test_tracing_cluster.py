"""Traces that leave the process: a publication to the stream is a client span of the request, and its message says whose it is."""

import asyncio
import base64
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import nats
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.observability.otlp_receivers import OtelTap, attributes_of, otel_tap
from tests.support.cluster import Cluster
from tokmesh.cluster.subjects import Subjects
from tokmesh.errors import ApiError
from tokmesh.ids import parse_session_id
from tokmesh.telemetry.tracing.span import SERVER, TraceContext
from tokmesh.telemetry.tracing.span import Span as OwnSpan
from tokmesh.telemetry.tracing.traced_asking import TracedAsking
from tokmesh.telemetry.tracing.traced_publishing import TracedPublishing

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED = {"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01", "tracestate": "vendor=one,other=two"}
SUBJECTS = Subjects("tokmesh")


@pytest.fixture(name="tap")
def _tap() -> Iterator[OtelTap]:
    with otel_tap() as tap:
        yield tap


def headers_of(cluster: Cluster, session_id: str) -> dict[str, str]:
    """Of the last message about a session in the stream, as any reader of it gets them."""
    raw = parse_session_id(session_id)
    assert raw is not None
    body = json.dumps({"last_by_subj": SUBJECTS.session(raw)}).encode()

    async def ask() -> bytes:
        client = await nats.connect(cluster.nats.urls)
        try:
            return (await client.request(f"$JS.API.STREAM.MSG.GET.{SUBJECTS.stream}", body, timeout=10)).data
        finally:
            await client.close()

    message = json.loads(asyncio.run(ask()))["message"]
    lines = base64.b64decode(message["hdrs"]).decode().split("\r\n")[1:]
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines if line)}


def traced_cluster(tmp_path: Path, tracing: Sequence[str]) -> Cluster:
    return Cluster(tmp_path, nodes=1, servers=1, args=tracing)


def test_a_publication_is_a_span_of_its_request_and_its_message_carries_the_trace(tmp_path: Path, tap: OtelTap) -> None:
    prefix = "--telemetry.tracing."
    options = (
        f"{prefix}enabled=true", f"{prefix}endpoint={tap.endpoint}", f"{prefix}sampling_ratio=0", f"{prefix}export_interval=50ms",
    )  # fmt: skip
    with traced_cluster(tmp_path, options) as cluster:
        untraced = cluster.create(0)
        status, made = cluster.nodes[0].request("POST", "/sessions", json={"user_id": "u"}, key=cluster.key, headers=SAMPLED)
        assert status == 200
        session_id = made["data"]["session_id"]
        [create] = tap.wait_for("session create")
        [published] = tap.wait_for("stream publish")
        traced, plain = headers_of(cluster, session_id), headers_of(cluster, untraced["session_id"])
        update = f"/sessions/{session_id}/update"
        cluster.ask(0, "POST", update, {"data": {"a": "1"}, "if_version": 1})
        after = headers_of(cluster, session_id)
    assert published.kind == Span.SPAN_KIND_CLIENT
    assert (published.trace_id.hex(), published.parent_span_id) == (TRACE_ID, create.span_id)
    assert create.start_time_unix_nano <= published.start_time_unix_nano < published.end_time_unix_nano
    assert published.end_time_unix_nano <= create.end_time_unix_nano
    told = attributes_of(published)
    assert told.pop("tokmesh.stream.sequence") > 0  # type: ignore[operator]
    assert told == {
        "messaging.system": "nats", "messaging.operation.name": "publish", "messaging.operation.type": "send",
        "messaging.destination.name": SUBJECTS.stream, "tokmesh.publish.attempts": 1,
    }  # fmt: skip
    assert published.status.code == Status.STATUS_CODE_UNSET
    assert traced["traceparent"] == f"00-{TRACE_ID}-{published.span_id.hex()}-01"
    assert traced["tracestate"] == "vendor=one,other=two"
    for headers in (plain, after):
        assert "Nats-Msg-Id" in headers and "traceparent" not in headers and "tracestate" not in headers


def test_without_tracing_a_message_carries_none(tmp_path: Path) -> None:
    with traced_cluster(tmp_path, ()) as cluster:
        made = cluster.nodes[0].request("POST", "/sessions", json={"user_id": "u"}, key=cluster.key, headers=SAMPLED)[1]
        headers = headers_of(cluster, made["data"]["session_id"])
    assert "Nats-Msg-Id" in headers and "traceparent" not in headers


class SentMessage:
    """As much of a publication as its span needs."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.attempts = 3
        self.told: list[object] = []
        self.stored: Callable[[int], None] = self.told.append
        self.failed: Callable[[ApiError], None] = self.told.append


def test_a_publication_that_fails_ends_its_span_with_its_code_and_is_told_as_ever() -> None:
    ended: list[OwnSpan] = []
    context = TraceContext(bytes.fromhex(TRACE_ID), b"", "", 0, lambda size: b"\x07" * size, ended.append)
    request = OwnSpan(context, "POST /sessions", SERVER, None, 5, ())
    message, error = SentMessage(), ApiError("TM-CLST-5030")
    TracedPublishing("STREAM", lambda: request, monotonic_ns=lambda: 9).begin(message)
    assert message.headers == {"traceparent": f"00-{TRACE_ID}-{'07' * 8}-01"}
    message.failed(error)
    assert message.told == [error]
    [span] = ended
    assert (span.error, span.measured, span.ended_ns) == ("TM-CLST-5030", (("tokmesh.publish.attempts", 3),), 9)


@pytest.mark.parametrize(("outcome", "error"), [("answered", ""), ("refused", ""), ("silent", "TM-CLST-5030")])
def test_a_question_to_another_node_is_a_span_and_carries_the_trace(outcome: str, error: str) -> None:
    ended: list[OwnSpan] = []
    context = TraceContext(bytes.fromhex(TRACE_ID), b"", "vendor=one", 0, lambda size: b"\x07" * size, ended.append)
    request = OwnSpan(context, "POST /sessions", SERVER, None, 5, ())
    asking = TracedAsking(lambda: request, monotonic_ns=lambda: 9)
    assert asking.begin("get", None) is None, "nobody's"
    question = asking.begin("get", asking.current())
    assert question is not None
    assert question.headers == {"traceparent": f"00-{TRACE_ID}-{'07' * 8}-01", "tracestate": "vendor=one"}
    question.ended(outcome)
    [span] = ended
    assert (span.name, span.error, span.measured, span.ended_ns) == ("node ask", error, (("tokmesh.ask.outcome", outcome),), 9)
    assert dict(span.fixed)["tokmesh.ask.operation"] == "get"


def test_a_publication_of_nobody_s_trace_is_left_as_it_is() -> None:
    message = SentMessage()
    stored, failed = message.stored, message.failed
    TracedPublishing("STREAM", lambda: None).begin(message)
    assert (message.headers, message.stored, message.failed) == ({}, stored, failed)
