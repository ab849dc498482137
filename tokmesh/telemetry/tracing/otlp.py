"""Spans as OTLP: one ExportTraceServiceRequest a batch. The only module that imports OpenTelemetry: its messages, not its SDK.

What most spans have in common (name, kind, attributes, error) is made into a message once and kept as bytes. What is a span's own,
ids and times, has a fixed size and is packed behind them: a message costs four times as much, and encoding is half of what a
trace costs. Encoding runs in the exporter's thread and lets the loop have the interpreter every few spans.

Field numbers: ExportTraceServiceRequest resource_spans 1 · ResourceSpans resource 1, scope_spans 2 · ScopeSpans scope 1, spans 2 ·
Span trace_id 1, span_id 2, trace_state 3, parent_span_id 4, start 7, end 8 (fixed64), attributes 9, flags 16 (fixed32).
"""

import struct
import time
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tokmesh.errors import ERRORS
from tokmesh.telemetry.protobuf_wire import nested, varint
from tokmesh.telemetry.tracing.span import CLIENT, INTERNAL, SERVER, Attributes, Span

SPANS_PER_SLICE: Final = 128  # a tenth of a millisecond; letting go costs what twenty spans do
COMMON_PARTS_MAX: Final = 1024  # methods × templates × statuses × addresses of one server, and far beyond what is in use
_KINDS: Final = {
    INTERNAL: SpanMessage.SPAN_KIND_INTERNAL,
    SERVER: SpanMessage.SPAN_KIND_SERVER,
    CLIENT: SpanMessage.SPAN_KIND_CLIENT,
}
_SAMPLED: Final = 0x01
_KNOWS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
_IDS_AND_TIMES: Final = struct.Struct("<2s16s2s8scQcQ2sI")
_TRACE_ID, _SPAN_ID, _START, _END, _FLAGS = b"\x0a\x10", b"\x12\x08", b"\x39", b"\x41", b"\x85\x01"  # tags, and lengths of ids
_PARENT: Final = b"\x22\x08"
_SPANS: Final = b"\x12"


class SpanEncoder:
    """resource: attributes of this process."""

    def __init__(self, resource: Attributes, version: str) -> None:
        scope = InstrumentationScope(name="tokmesh", version=version)
        self._resource = nested(1, Resource(attributes=_key_values(resource)).SerializeToString())
        self._scope = nested(1, scope.SerializeToString())

    def encode(self, spans: Sequence[Span]) -> bytes:
        """The request that carries these spans."""
        parts = [self._scope]
        for number, span in enumerate(spans, 1):
            content = _span(span)
            parts += (_SPANS, varint(len(content)), content)
            if number % SPANS_PER_SLICE == 0:
                time.sleep(0)
        return nested(1, self._resource + nested(2, b"".join(parts)))


def rejected_spans(answer: bytes) -> int:
    """How many spans a receiver that took the request did not want. Raises ValueError for what is no OTLP answer."""
    try:
        message = ExportTraceServiceResponse.FromString(answer)
    except DecodeError:
        raise ValueError("not an ExportTraceServiceResponse") from None
    return max(0, message.partial_success.rejected_spans)


def _span(span: Span) -> bytes:
    context = span.context
    flags = _SAMPLED | _KNOWS_REMOTE | (_IS_REMOTE if span.is_remote_child else 0)
    started_ns, ended_ns = span.started_ns + context.offset_ns, span.ended_ns + context.offset_ns
    content = _common_part(span.name, span.kind, span.fixed, span.error) + _IDS_AND_TIMES.pack(
        _TRACE_ID, context.trace_id, _SPAN_ID, span.span_id, _START, started_ns, _END, ended_ns, _FLAGS, flags
    )
    if span.parent_id:
        content += _PARENT + span.parent_id
    if context.trace_state:
        content += nested(3, context.trace_state.encode())
    if span.measured:
        content += b"".join(nested(9, pair.SerializeToString()) for pair in _key_values(span.measured))
    return content


@lru_cache(maxsize=COMMON_PARTS_MAX)
def _common_part(name: str, kind: int, fixed: Attributes, error: str) -> bytes:
    message = SpanMessage(name=name, kind=_KINDS[kind], attributes=_key_values(fixed))
    if error:
        message.attributes.extend(_key_values((("tokmesh.error.code", error),)))
    status = dict(fixed).get("http.response.status_code", ERRORS[error].status if error else 0)
    # A server did not fail when it refused what a client got wrong (semantic conventions of HTTP server spans).
    if isinstance(status, int) and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        message.attributes.extend(_key_values((("error.type", error or str(status)),)))
        message.status.code = Status.STATUS_CODE_ERROR
    return message.SerializeToString()


def _key_values(attributes: Attributes) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in attributes]


def _value(value: str | int) -> AnyValue:
    return AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value)
