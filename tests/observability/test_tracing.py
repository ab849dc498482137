"""Tracing of a real server, told to a real OTLP receiver: which spans there are, what they say, and what they never say."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.observability.otlp_receivers import OtelTap, attributes_of, faulty_receiver, otel_tap
from tests.support.server import TokMeshProcess
from tokmesh import __version__

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE_ID}-{PARENT_ID}-01"
UNSAMPLED = f"00-{TRACE_ID}-{PARENT_ID}-00"


def traced_server(tmp_path: Path, endpoint: str, *args: str) -> TokMeshProcess:
    """A server that traces everything, quickly, unless args say otherwise."""
    tracing = "--telemetry.tracing."
    options = (f"{tracing}enabled=true", f"{tracing}endpoint={endpoint}", f"{tracing}sampling_ratio=1")
    return TokMeshProcess(tmp_path, *options, f"{tracing}max_traces_per_second=100000", f"{tracing}export_interval=50ms", *args)


@pytest.fixture(name="tap")
def _tap() -> Iterator[OtelTap]:
    with otel_tap() as tap:
        yield tap


def children_of(tap: OtelTap, parent: Span) -> list[Span]:
    return [span for span in list(tap.spans) if span.parent_span_id == parent.span_id and span.trace_id == parent.trace_id]


def test_a_create_is_one_trace_from_the_request_to_the_commit(tmp_path: Path, tap: OtelTap) -> None:
    with traced_server(tmp_path, tap.endpoint) as server:
        server.create_session()
        [request] = tap.wait_for("POST /sessions")
        [create] = tap.wait_for("session create")
        [commit] = tap.wait_for("log commit")
    assert (request.kind, create.kind, commit.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_INTERNAL, Span.SPAN_KIND_INTERNAL)
    assert request.trace_id == create.trace_id == commit.trace_id and len(request.trace_id) == 16
    assert (request.parent_span_id, create.parent_span_id, commit.parent_span_id) == (b"", request.span_id, create.span_id)
    assert len({request.span_id, create.span_id, commit.span_id}) == 3
    assert request.start_time_unix_nano <= create.start_time_unix_nano <= commit.start_time_unix_nano
    assert commit.start_time_unix_nano < commit.end_time_unix_nano <= create.end_time_unix_nano <= request.end_time_unix_nano
    assert attributes_of(request) == {
        "http.request.method": "POST", "http.route": "/sessions", "http.response.status_code": 200, "url.scheme": "http",
        "network.protocol.version": "1.1", "server.address": "127.0.0.1", "server.port": server.port,
    }  # fmt: skip
    committed = attributes_of(commit)
    assert committed["tokmesh.log.group_records"] == 1
    assert isinstance(committed["tokmesh.log.sequence"], int) and committed["tokmesh.log.sequence"] >= 1
    assert request.flags & 0x1FF == 0x101, "sampled, and known not to have a remote parent"


def test_the_hot_path_is_traced_too_and_a_validate_has_its_step(tmp_path: Path, tap: OtelTap) -> None:
    with traced_server(tmp_path, tap.endpoint) as server:
        token = server.create_session()["token"]
        for _ in range(3):
            assert server.validate(token)["valid"]
        requests = tap.wait_for("POST /tokens/validate", 3)
        assert len(requests) == len({span.trace_id for span in requests}) == 3
        for request in requests:
            assert [span.name for span in children_of(tap, request)] == ["token validate"]


def test_errors_of_clients_are_no_errors_of_the_server_but_have_their_code(tmp_path: Path, tap: OtelTap) -> None:
    with traced_server(tmp_path, tap.endpoint) as server:
        server.request("POST", "/sessions", json={"user_id": ""})
        server.request("POST", "/sessions", json={}, key=None)
        server.request("GET", "/no/such/path?token=x")
        [refused, unauthorized] = tap.wait_for("POST /sessions", 2)
        [unknown] = tap.wait_for("GET")
    told = attributes_of(refused)
    assert (told["http.response.status_code"], told["tokmesh.error.code"]) == (400, "TM-SESS-4001")
    assert attributes_of(unauthorized)["tokmesh.error.code"] == "TM-AUTH-4010"
    assert children_of(tap, unauthorized) == []
    assert attributes_of(unknown)["http.response.status_code"] == 404 and "http.route" not in attributes_of(unknown)
    for span in (refused, unauthorized, unknown):
        assert span.status.code == Status.STATUS_CODE_UNSET and "error.type" not in attributes_of(span)


def test_a_failed_commit_is_an_error_in_all_its_spans(tmp_path: Path, tap: OtelTap) -> None:
    strace = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=3+")
    with traced_server(tmp_path, tap.endpoint) as server:
        server.wrapper = list(strace)
        assert server.stop() == 0
        tap.spans.clear()
        server.start()
        statuses = [server.request("POST", "/sessions", json={"user_id": f"user-{number}"})[0] for number in range(6)]
        assert statuses[-1] in (500, 503), statuses
        tap.wait_for("POST /sessions", 6)
        steps = ("POST /sessions", "session create", "log commit")
        failed = [span for span in tap.spans if span.name in steps and span.status.code == Status.STATUS_CODE_ERROR]
    assert {span.name for span in failed} == set(steps)
    for span in failed:
        assert attributes_of(span)["error.type"] == "TM-SYS-5001" == attributes_of(span)["tokmesh.error.code"]


def test_a_trace_of_the_caller_goes_on_here_and_its_decision_is_followed(tmp_path: Path, tap: OtelTap) -> None:
    with traced_server(tmp_path, tap.endpoint, "--telemetry.tracing.sampling_ratio=0") as server:
        token = server.create_session()["token"]
        for traceparent in (UNSAMPLED, SAMPLED):
            headers = {"traceparent": traceparent, "tracestate": "vendor=one,other=two"}
            assert server.request("POST", "/tokens/validate", json={"token": token}, headers=headers)[0] == 200
        [request] = tap.wait_for("POST /tokens/validate")
        [step] = tap.wait_for("token validate")
        assert server.stop() == 0
    assert len(tap.spans) == 2, "only the sampled one: the ratio is 0"
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert request.trace_state == step.trace_state == "vendor=one,other=two"
    assert (request.flags & 0x300, step.flags & 0x300) == (0x300, 0x100), "the parent of the one is elsewhere, of the other here"


def test_a_head_that_repeats_its_traceparent_is_traced_each_time(tmp_path: Path, tap: OtelTap) -> None:
    with traced_server(tmp_path, tap.endpoint, "--telemetry.tracing.sampling_ratio=0") as server:
        token = server.create_session()["token"]
        head_and_body = _validate_request(server, token, f"traceparent: {SAMPLED}\r\n")
        assert _pipelined(server, head_and_body * 5).count(b'"valid":true') == 5
        tap.wait_for("POST /tokens/validate", 5)
        head_and_body = _validate_request(server, token, f"traceparent: {UNSAMPLED}\r\n")
        assert _pipelined(server, head_and_body * 5).count(b'"valid":true') == 5
        assert server.stop() == 0
    assert len(tap.named("POST /tokens/validate")) == 5


def test_spans_tell_no_secret_no_id_no_user_no_path_and_no_query(tmp_path: Path) -> None:
    with faulty_receiver() as receiver, traced_server(tmp_path, receiver.endpoint) as server:
        made = server.create_session("very-private-user", device_id="very-private-device", user_agent="very-private-agent")
        session_id, token = made["session_id"], made["token"]
        server.request("POST", "/tokens/validate", json={"token": token})
        context = {"traceparent": SAMPLED, "tracestate": f"a={token}"}
        server.request("POST", "/tokens/validate", json={"token": token}, headers=context)
        server.request("GET", f"/sessions/{session_id}?very-private=query")
        server.request("GET", f"/nowhere/{token}", headers={"X-Request-ID": "very-private-request"})
        server.request("POST", f"/sessions/{session_id}/revoke", json={})
        server.request("POST", "/users/very-private-user/sessions/revoke", json={})
        key_id, _, key_secret = server.admin_key.partition(":")
        assert server.stop() == 0
        sent = b"".join(body for _, _, _, body in receiver.requests)
        assert {"GET /sessions/{session_id}", "POST /users/{user_id}/sessions/revoke"} <= {span.name for span in receiver.spans()}
    for secret in (session_id, token, key_id, key_secret, "very-private", "nowhere"):
        assert secret.encode() not in sent
    assert re.search(rb"tm(tk|as)_|tm(ss|ak)-", sent) is None


def test_spans_name_the_node_they_come_from(tmp_path: Path) -> None:
    with faulty_receiver() as receiver, traced_server(tmp_path, receiver.endpoint) as server:
        server.create_session()
        node_id = (server.directory / "node_id").read_text().strip()
        assert server.stop() == 0
        [*_, (_, path, headers, body)] = receiver.requests
    [resource_spans] = ExportTraceServiceRequest.FromString(body).resource_spans
    resource = attributes_of(resource_spans.resource)
    assert {name: resource[name] for name in ("service.name", "service.version", "service.instance.id")} == {
        "service.name": "tokmesh", "service.version": __version__, "service.instance.id": node_id,
    }  # fmt: skip
    assert (path, headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")


def test_log_lines_of_a_traced_request_name_its_trace(tmp_path: Path, tap: OtelTap) -> None:
    with traced_server(tmp_path, tap.endpoint) as server:
        server.create_key("validator")
        [request] = tap.wait_for("POST /admin/v1/keys")
        assert server.stop() == 0
        lines = server.log_lines()
    [line] = [line for line in lines if line.get("trace_id") == request.trace_id.hex()]
    assert line["span_id"] == request.span_id.hex() and line["request_id"].startswith("req-")
    assert not any("trace_id" in line for line in lines if line["message"] in ("serving", "stopping", "stopped"))


def _validate_request(server: TokMeshProcess, token: str, extra: str) -> bytes:
    body = f'{{"token":"{token}"}}'
    return (
        f"POST /tokens/validate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.admin_key}\r\n{extra}"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def _pipelined(server: TokMeshProcess, requests: bytes) -> bytes:
    """What the server answers to bytes on one connection, which the client then ends."""
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(requests)
        connection.shutdown(socket.SHUT_WR)
        while piece := connection.recv(65536):
            received += piece
    return received


def test_a_sampled_request_leaves_its_trace_as_an_exemplar(tmp_path: Path, tap: OtelTap) -> None:
    with traced_server(tmp_path, tap.endpoint, "--telemetry.tracing.sampling_ratio=0") as server:
        token = server.create_session()["token"]
        server.request("POST", "/tokens/validate", json={"token": token}, headers={"traceparent": SAMPLED})
        server.request("GET", "/sessions?user_id=u", headers={"traceparent": UNSAMPLED})
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        openmetrics = server.exchange("GET", "/metrics", headers=accept)[2].decode()
        text = server.exchange("GET", "/metrics")[2].decode()
    [line] = [line for line in openmetrics.splitlines() if "# {" in line]
    series, _, exemplar = line.partition(" # ")
    assert series.startswith("tokmesh_api_request_duration_seconds_bucket{") and 'route="/tokens/validate"' in series
    assert re.fullmatch(rf'\{{trace_id="{TRACE_ID}"\}} [0-9.e-]+ [0-9.]+', exemplar) and TRACE_ID not in text
