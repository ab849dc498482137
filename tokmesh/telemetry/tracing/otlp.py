"""Spans as OTLP: one ExportTraceServiceRequest a batch. The only module that imports OpenTelemetry: its messages, not its SDK.

What most spans have in common (name, kind, attributes, error) is made into a message once and kept as bytes, which protobuf
merges into each span; so a span costs its ids and times. Encoding runs in the exporter's thread and lets the loop have the
interpreter every few spans.
"""

import time
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tokmesh.errors import ERRORS
from tokmesh.telemetry.tracing.span import INTERNAL, SERVER, Attributes, Span

SPANS_PER_SLICE: Final = 16
COMMON_PARTS_MAX: Final = 1024  # methods × templates × statuses × addresses of one server, and far beyond what is in use
_KINDS: Final = {INTERNAL: SpanMessage.SPAN_KIND_INTERNAL, SERVER: SpanMessage.SPAN_KIND_SERVER}
_SAMPLED: Final = 0x01
_KNOWS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200


class SpanEncoder:
    """resource: attributes of this process."""

    def __init__(self, resource: Attributes, version: str) -> None:
        self._resource = resource
        self._version = version

    def encode(self, spans: Sequence[Span]) -> bytes:
        """The request that carries these spans."""
        request = ExportTraceServiceRequest()
        group = request.resource_spans.add()
        group.resource.attributes.extend(_key_values(self._resource))
        scope = group.scope_spans.add()
        scope.scope.name, scope.scope.version = "tokmesh", self._version
        for number, span in enumerate(spans, 1):
            _fill(scope.spans.add(), span)
            if number % SPANS_PER_SLICE == 0:
                time.sleep(0)
        return request.SerializeToString()


def rejected_spans(answer: bytes) -> int:
    """How many spans a receiver that took the request did not want. Raises ValueError for what is no OTLP answer."""
    try:
        message = ExportTraceServiceResponse.FromString(answer)
    except DecodeError:
        raise ValueError("not an ExportTraceServiceResponse") from None
    return max(0, message.partial_success.rejected_spans)


def _fill(message: SpanMessage, span: Span) -> None:
    context = span.context
    message.MergeFromString(_common_part(span.name, span.kind, span.fixed, span.error))
    message.trace_id = context.trace_id
    message.span_id = span.span_id
    message.parent_span_id = span.parent_id
    message.trace_state = context.trace_state
    message.flags = _SAMPLED | _KNOWS_REMOTE | (_IS_REMOTE if span.is_remote_child else 0)
    message.start_time_unix_nano = span.started_ns + context.offset_ns
    message.end_time_unix_nano = span.ended_ns + context.offset_ns
    if span.measured:
        message.attributes.extend(_key_values(span.measured))


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
