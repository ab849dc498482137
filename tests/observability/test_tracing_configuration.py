"""Tracing off imports nothing; on, it is refused without what it needs, and stays out of the way of serving and stopping."""

import re
import signal
import time
from pathlib import Path

import pytest

from tests.observability.otlp_receivers import faulty_receiver
from tests.observability.test_server import value
from tests.observability.test_tracing import traced_server
from tests.support.config import load_errors, load_settings
from tests.support.ports import free_port
from tests.support.server import TokMeshProcess, run_command
from tests.support.waiting import wait_until
from tokmesh.config import ConfigError
from tokmesh.host.header_file import FILE_BYTES_MAX, read_headers
from tokmesh.telemetry.tracing.figures import DROP_REASONS, FAILURE_REASONS

ON = {"telemetry.tracing.enabled": "true", "telemetry.tracing.endpoint": "http://127.0.0.1:4318"}
WITHOUT_OPENTELEMETRY = """\
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("opentelemetry", "google"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
"""


def imported_by(server: TokMeshProcess) -> set[str]:
    """The modules the process has imported, as Python's own -X importtime lists them on standard error."""
    return set(re.findall(r"^import time:.*\| +(\S+)$", server.stderr, re.MULTILINE))


@pytest.mark.parametrize("enabled", [False, True])
def test_opentelemetry_is_imported_by_a_running_server_only_when_tracing_is_on(tmp_path: Path, enabled: bool) -> None:
    environment = {"PYTHONPROFILEIMPORTTIME": "1"}
    options = [f"--{name}={value}" for name, value in ON.items()] if enabled else []
    with TokMeshProcess(tmp_path, *options, env=environment) as server:
        token = server.create_session()["token"]
        server.request("POST", "/tokens/validate", json={"token": token}, headers={"traceparent": f"00-{'1' * 32}-{'1' * 16}-01"})
        server.exchange("GET", "/metrics")
        threads = {path.read_text().strip() for path in Path(f"/proc/{server.pid}/task").glob("*/comm")}
        modules = imported_by(server)
    assert "tokmesh.app" in modules, "the list is real"
    foreign = {name for name in modules if name.split(".")[0] in ("opentelemetry", "google")}
    ours = {name for name in modules if name.startswith("tokmesh.telemetry.tracing.")}
    assert bool(foreign) is enabled
    assert ("tokmesh.telemetry.tracing.tracer" in ours) is enabled
    if not enabled:
        assert ours == {"tokmesh.telemetry.tracing.figures", "tokmesh.telemetry.tracing.switch"}
        assert not any(name.startswith("tokmesh-traces"[:15]) for name in threads)


def test_without_the_extra_tracing_is_refused_and_told_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_OPENTELEMETRY)
    options = [f"--{name}={value}" for name, value in ON.items()]
    ended = run_command("config", "check", *options, env={"PYTHONPATH": str(tmp_path)})
    assert ended.returncode == 78
    assert "TM-CFG-1006 telemetry.tracing.enabled" in ended.stderr and "pip install tokmesh[otel]" in ended.stderr
    assert run_command("config", "check", env={"PYTHONPATH": str(tmp_path)}).returncode == 0


def test_an_endpoint_is_needed_when_tracing_is_on_and_only_then() -> None:
    assert load_errors({"telemetry.tracing.enabled": "true"}) == [("TM-CFG-1006", "telemetry.tracing.endpoint")]
    assert load_settings({"telemetry.tracing.sampling_ratio": "1"}).telemetry.tracing.endpoint == ""
    assert load_settings(ON).telemetry.tracing.enabled


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("endpoint", "http://collector:4318/v1/traces", None), ("endpoint", "https://[::1]", None),
        ("endpoint", "http://c:65535", None),
        ("endpoint", "collector:4318", "TM-CFG-1001"), ("endpoint", "ftp://collector", "TM-CFG-1001"),
        ("endpoint", "http://", "TM-CFG-1001"), ("endpoint", "http://c:65536", "TM-CFG-1001"),
        ("endpoint", "http://c:0", "TM-CFG-1002"),
        ("endpoint", "http://[::1", "TM-CFG-1001"), ("endpoint", "http://user:secret@c", "TM-CFG-1002"),
        ("endpoint", "http://c/?key=secret", "TM-CFG-1002"), ("endpoint", "http://c/#x", "TM-CFG-1002"),
        ("endpoint", "http://c/a b", "TM-CFG-1002"), ("endpoint", "http://c/" + "x" * 2039, None),
        ("endpoint", "http://c/" + "x" * 2040, "TM-CFG-1002"),
        ("sampling_ratio", "0", None), ("sampling_ratio", "1", None), ("sampling_ratio", "1.01", "TM-CFG-1002"),
        ("sampling_ratio", "-0.1", "TM-CFG-1001"), ("sampling_ratio", "half", "TM-CFG-1001"),
        ("max_traces_per_second", "1", None), ("max_traces_per_second", "100000", None),
        ("max_traces_per_second", "0", "TM-CFG-1002"), ("max_traces_per_second", "100001", "TM-CFG-1002"),
        ("queue_size", "64", None), ("queue_size", "1000000", None), ("queue_size", "63", "TM-CFG-1002"),
        ("queue_size", "1000001", "TM-CFG-1002"),
        ("export_interval", "50ms", None), ("export_interval", "1m", None), ("export_interval", "49ms", "TM-CFG-1002"),
        ("export_interval", "61s", "TM-CFG-1002"),
        ("export_timeout", "100ms", None), ("export_timeout", "1m", None), ("export_timeout", "99ms", "TM-CFG-1002"),
        ("export_timeout", "61s", "TM-CFG-1002"),
        ("headers_file", "/nonexistent/headers", "TM-CFG-1003"),
    ],
)  # fmt: skip
def test_each_key_takes_its_range_and_nothing_beyond(name: str, value: str, code: str | None) -> None:
    given = {**ON, f"telemetry.tracing.{name}": value}
    if code is None:
        load_settings(given)
    else:
        assert load_errors(given) == [(code, f"telemetry.tracing.{name}")]


def test_a_password_in_an_endpoint_is_refused_without_repeating_it() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({"telemetry.tracing.endpoint": "http://user:let-me-in@collector"})
    assert "let-me-in" not in str(caught.value) and "//[redacted]@collector" in str(caught.value)


def test_headers_from_a_file_are_sent_and_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("# for the collector\n\nAuthorization: Bearer let-me-in\r\nx-scope:  a b \n")
    with faulty_receiver() as receiver:
        with traced_server(tmp_path, receiver.endpoint + "/own/path", f"--telemetry.tracing.headers_file={file}") as server:
            server.create_session()
            wait_until(lambda: bool(receiver.requests), "a request")
            assert server.stop() == 0
            assert "let-me-in" not in server.output
        _, path, headers, _ = receiver.requests[0]
    assert (path, headers["Authorization"], headers["x-scope"]) == ("/own/path", "Bearer let-me-in", "a b")
    assert headers["User-Agent"].startswith("tokmesh/")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"no colon", "TM-CFG-1001"), (b"bad name: x", "TM-CFG-1001"), (b": x", "TM-CFG-1001"), (b"a:", "TM-CFG-1001"),
        (b"a: \xff", "TM-CFG-1001"), (b"a: x\x00y", "TM-CFG-1001"), (b"a: 1\nA: 2", "TM-CFG-1005"), (b"Host: x", "TM-CFG-1005"),
        (b"content-length: 5", "TM-CFG-1005"), (b"#" * (FILE_BYTES_MAX + 1), "TM-CFG-1002"), (b"#" * FILE_BYTES_MAX, None),
    ],
)  # fmt: skip
def test_a_headers_file_with_a_defect_is_refused_without_repeating_it(tmp_path: Path, content: bytes, code: str | None) -> None:
    file = tmp_path / "headers"
    file.write_bytes(content + b"\nsecret: let-me-in" if code != "TM-CFG-1002" and code is not None else content)
    if code is None:
        assert read_headers(file, "key") == {}
        return
    with pytest.raises(ConfigError) as caught:
        read_headers(file, "key")
    assert [problem.code for problem in caught.value.problems] == [code]
    assert "let-me-in" not in str(caught.value)


def test_a_headers_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"TM-CFG-1003.* no such file"):
        read_headers(tmp_path / "none", "key")
    with pytest.raises(ConfigError, match=r"TM-CFG-1003.* is a directory"):
        read_headers(tmp_path, "key")
    assert read_headers(None, "key") == {}


def test_every_figure_of_tracing_is_there_at_zero_while_it_is_off(tmp_path: Path) -> None:
    with TokMeshProcess(tmp_path) as server:
        page = server.exchange("GET", "/metrics")[2].decode().replace(" 0.0\n", " 0\n")
    lines = [
        *(f'tokmesh_trace_spans_dropped_total{{reason="{reason}"}} 0' for reason in DROP_REASONS),
        *(f'tokmesh_trace_export_failures_total{{reason="{reason}"}} 0' for reason in FAILURE_REASONS),
        *(f'tokmesh_trace_requests_total{{outcome="{outcome}"}} 0' for outcome in ("sampled", "rate_limited")),
        "tokmesh_trace_spans_exported_total 0", "tokmesh_trace_queue_spans 0",
    ]  # fmt: skip
    assert [line for line in lines if line not in page.splitlines()] == []


def test_metrics_tell_what_became_of_the_spans(tmp_path: Path) -> None:
    with faulty_receiver() as receiver, traced_server(tmp_path, receiver.endpoint) as server:
        for number in range(5):
            server.create_session(f"user-{number}")
        wait_until(lambda: value(server, "tokmesh_trace_spans_exported_total") >= 15, "15 spans exported")
        assert value(server, "tokmesh_trace_requests_total", outcome="sampled") >= 5
        receiver.status = 400
        server.create_session("another")
        wait_until(lambda: value(server, "tokmesh_trace_spans_dropped_total", reason="refused") >= 3, "3 spans refused")
        assert value(server, "tokmesh_trace_export_failures_total", reason="status") >= 1


def test_the_ratio_and_the_cap_change_at_sighup(tmp_path: Path) -> None:
    file = tmp_path / "tokmesh.yaml"
    file.write_text("telemetry.tracing.sampling_ratio: 0\n")
    with faulty_receiver() as receiver:
        options = ["--telemetry.tracing.enabled=true", f"--telemetry.tracing.endpoint={receiver.endpoint}", f"--config={file}"]
        with TokMeshProcess(tmp_path, *options) as server:
            server.create_session()
            assert value(server, "tokmesh_trace_requests_total", outcome="sampled") == 0
            file.write_text("telemetry.tracing: {sampling_ratio: 1, max_traces_per_second: 1}\n")
            server.send_signal(signal.SIGHUP)
            wait_until(lambda: any(line["message"] == "configuration reloaded" for line in server.log_lines()), "reloaded")
            for _ in range(10):
                server.create_session()
            assert value(server, "tokmesh_trace_requests_total", outcome="sampled") >= 1
            assert value(server, "tokmesh_trace_requests_total", outcome="rate_limited") >= 1


@pytest.mark.parametrize("fault", ["down", "silent", "429", "503"])
def test_a_receiver_in_trouble_neither_disturbs_serving_nor_delays_the_stop(tmp_path: Path, fault: str) -> None:
    with faulty_receiver() as receiver:
        endpoint = f"http://127.0.0.1:{free_port()}" if fault == "down" else receiver.endpoint
        if fault == "silent":
            receiver.hold.set()
        elif fault != "down":
            receiver.status, receiver.headers = int(fault), {"Retry-After": "300"}
        options = ("--telemetry.tracing.queue_size=64", "--server.shutdown.timeout=3s", "--telemetry.tracing.export_timeout=20s")
        with traced_server(tmp_path, endpoint, *options) as server:
            token = server.create_session()["token"]
            for _ in range(100):
                assert server.validate(token)["valid"]
            wait_until(lambda: value(server, "tokmesh_trace_spans_dropped_total", reason="queue_full") > 0, "spans dropped")
            assert value(server, "tokmesh_trace_queue_spans") == 64
            started_s = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - started_s < 10
            [lost] = [line for line in server.log_lines() if line["message"] == "spans were lost at the end"]
    assert lost["spans"] >= 64


def test_the_stop_exports_the_spans_of_the_last_requests(tmp_path: Path) -> None:
    rarely = "--telemetry.tracing.export_interval=1m"
    with faulty_receiver() as receiver, traced_server(tmp_path, receiver.endpoint, rarely) as server:
        for number in range(3):
            server.create_session(f"user-{number}")
        assert receiver.requests == []
        assert server.stop() == 0
        assert [span.name for span in receiver.spans()].count("session create") == 3
