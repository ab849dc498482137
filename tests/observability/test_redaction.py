"""No sink carries a secret: a real server at level debug gets secrets in every place of every route, and all it says is read.

Two kinds: real ones (a live token, the admin key) used as they are meant, and planted ones, sent where they have no business.
Planted ones may be kept as a session's own data, so the log on disk may hold them; nothing else may hold either.
Every request is traced, so that there are spans and exemplars of all that was asked. Those, metrics, the status and the status
page name no user, session or key either.
"""

import json
import os
import re
import signal
import urllib.parse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http.route_cases import CASES, Case
from tests.observability.otlp_receivers import FaultyReceiver, faulty_receiver
from tests.support.canaries import Canary, leaks
from tests.support.server import TokMeshProcess, run_command
from tests.support.waiting import wait_until
from tests.unit.test_logs import make
from tokmesh.storage.snapshot_file import SnapshotReader

TOKEN = "tmtk_Ab3-xY9_kL0pQr7sTu2vWz5cDe8fGh1iJm4nOo6Ba3Q"
SECRET = "tmas_9Zq8Yp7Xo6Wn5Vm4Ul3Tk2Sj1Ri0QhAgBfCeDdEcFbG"
PLANTED = (Canary("planted token", TOKEN), Canary("planted secret", SECRET))
UNKNOWN_ID = "tmak-01arz3ndektsv4rrffq69g5fav"
USER_ID = "somebody-called-alice"
BACKUPS = "/admin/v1/backups"
PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
BROWSER = {"Accept": "text/html"}
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NAMELESS = ("spans", "metrics", "metrics OpenMetrics", "metrics protobuf", "status", "console", "crash")

# Loaded by the server's interpreter before anything else: a bug that says all it knows, and a module that logs too much.
BUG = """
import hashlib, inspect, logging, os, threading, time, warnings
from tokmesh.sessions import Sessions
create = Sessions.create

def start(self, *args, **fields):
    raise RuntimeError("bug at the start: " + os.environ["BUG"])

if "BUG" in os.environ:
    import tokmesh.cli.version
    Sessions.__init__ = tokmesh.cli.version.run = start

def thread(secret):
    raise RuntimeError("bug of a thread: " + secret)

class Unraisable:
    def __init__(self, secret):
        self.secret = secret

    def __del__(self):
        raise RuntimeError("bug of a destructor: " + self.secret)

def hold():
    time.sleep(1.2)  # the line a stack shows: @TOKEN@ @SECRET@ @DIGEST@

async def buggy(self, *given, **named):
    fields = inspect.signature(create).bind(self, *given, **named).arguments
    user_id, secret = fields["user_id"], fields.get("token") or ""
    digest = hashlib.sha256(secret.encode()).digest()
    if user_id == "log":
        told = {"token": secret, secret: [secret, digest, digest.hex()], "authorization": "Bearer tmak-0:" + secret}
        logging.getLogger("tokmesh.sessions").debug("made %s %r", secret, digest, extra={"told": told, "raw": digest})
    if user_id == "uncaught":
        warnings.warn("bug that warns: " + secret)
        Unraisable(secret)
        threading.Thread(target=thread, args=(secret,)).start()
    if user_id == "held":
        hold()
    if user_id == "bug":
        raise RuntimeError(f"bug: {user_id} {fields} {digest!r} {digest.hex()}")
    return await create(self, *given, **named)

Sessions.create = buggy
""".replace("@TOKEN@", TOKEN).replace("@SECRET@", SECRET).replace("@DIGEST@", PLANTED[0].digest.hex())
OPTIONS = (
    "--telemetry.logging.level=debug", "--telemetry.logging.repeat.max=0", "--telemetry.logging.slow_request=1ms",
    "--telemetry.metrics.native_histograms=true", "--telemetry.watchdog.threshold=300ms",
    "--telemetry.tracing.enabled=true", "--telemetry.tracing.sampling_ratio=1",
    "--telemetry.tracing.max_traces_per_second=100000", "--telemetry.tracing.export_interval=50ms",
)  # fmt: skip


class Watched:
    """The server, and everything it has said so far but its log: by sink. receiver: where its spans go."""

    def __init__(self, folder: Path, receiver: FaultyReceiver) -> None:
        modules = folder / "modules"
        modules.mkdir()
        (modules / "sitecustomize.py").write_text(BUG)
        self.receiver = receiver
        self.path = os.pathsep.join((str(modules), str(Path(__file__).parents[2])))
        options = (*OPTIONS, f"--telemetry.tracing.endpoint={receiver.endpoint}")
        self.server = TokMeshProcess(folder, *options, env={"PYTHONPATH": self.path}).start()
        self.admin_key = self.server.admin_key
        made = self.server.create_session(USER_ID, data={"cart": "42"})
        self.token, self.session_id = made["token"], made["session_id"]
        self.said: dict[str, str | bytes] = {}
        self.planted = list(PLANTED)
        self.real = [Canary("live token", self.token), Canary("admin secret", self.admin_key.split(":")[1])]

    def ask(self, method: str, path: str, body: object = None, **options: Any) -> int:
        status, headers, answer = self.server.exchange(method, path, body, **options)
        kind = {"/admin": "answer to an administrator", "/ready": "answer to an administrator", "/conso": "console"}.get(path[:6])
        if status != 200 or kind is not None:
            kind = kind or "error answer"
            self.said[kind] = str(self.said.get(kind, "")) + f"\n{headers}\n{answer.decode()}"
        return status

    def plant(self, case: Case, secret: str) -> None:
        """Sends a secret in every place of a route."""
        path = case.path.replace("{session_id}", self.session_id)
        quoted = urllib.parse.quote(secret)
        body = None if case.body is None else json.dumps(case.body)
        for name in ("X-Request-ID", "User-Agent", "X-Surprise", "Accept", "Traceparent", "Cookie", "X-API-Key", "Authorization"):
            key = None if name in ("X-API-Key", "Authorization") else "admin"
            for value in (secret, f"Bearer {UNKNOWN_ID}:{secret}"):
                shown = {**BROWSER, name: value} if "/console" in path else {name: value}
                self.ask(case.method, path, body, key=key, headers=shown)
        for form in Canary("", secret).forms:
            for context in ({"traceparent": f"01{TRACEPARENT[2:]}-{form.rstrip('=')}"}, {"tracestate": f"a={form.rstrip('=')}"}):
                self.ask(case.method, path, body, headers={"traceparent": TRACEPARENT, **context})
        mark = "&" if "?" in path else "?"
        for name in ("surprise", "page", "cursor", "verbose", "event"):
            self.ask(case.method, f"{path}{mark}{name}={quoted}", body)
        for query in (f"{quoted}=1", quoted):
            self.ask(case.method, f"{path}{mark}{query}", body)
        self.ask(case.method, f"{path}/{quoted}", body)
        for part in (self.session_id, "settled", "tmak-01arz3ndektsv4rrffq69g5fav", "none", "restores/x"):
            if part in path:
                self.ask(case.method, path.replace(part, f"restores/{quoted}" if "/" in part else quoted), body)
        if case.method == "POST":
            self.plant_in_body(case, path, secret)
        self.server.data("POST", "/admin/v1/log-level", {"level": "debug"})  # whatever was just asked for

    def plant_in_body(self, case: Case, path: str, secret: str) -> None:
        """As text, as a field's name, and as the value of every field in turn."""
        self.ask("POST", path, secret)
        self.ask("POST", path, f'{{"{secret}": 1')
        self.ask("POST", path, json={secret: secret})
        for name in case.body or {}:
            for value in (secret, [secret], {secret: secret}, {"k": secret}):
                self.ask("POST", path, json={**(case.body or {}), name: value})

    def back_up(self) -> None:
        """Snapshots taken, fetched and refused, and restores that succeed and fail, with a session whose data is a secret."""
        self.server.create_session("backup", data={"t": TOKEN, "s": SECRET})
        taken = self.server.data("POST", f"{BACKUPS}/snapshots")
        status, _, content = self.server.exchange("GET", f"{BACKUPS}/snapshots/{taken['id']}/file")
        assert status == 200
        for upload in (content[:-1], content + TOKEN.encode(), f"{TOKEN} {SECRET}".encode()):
            assert self.ask("POST", f"{BACKUPS}/uploads", upload) == 422
        draft = self.server.directory / "snapshots" / "restored.tmp"
        draft.mkdir()
        assert self.restored("restores", json={"snapshot_id": taken["id"]}) == "failed"
        draft.rmdir()
        draft.with_name("snapshot.tmp").mkdir()
        assert self.ask("POST", f"{BACKUPS}/snapshots") == 503
        draft.with_name("snapshot.tmp").rmdir()
        assert self.restored("uploads", content) == self.restored("restores", json={"snapshot_id": taken["id"]}) == "done"
        for path in ("snapshots", "restores"):
            assert self.ask("GET", f"{BACKUPS}/{path}") == 200

    def restored(self, route: str, body: object = None, **options: Any) -> str:
        """How a restore ends."""
        assert self.ask("POST", f"{BACKUPS}/{route}", body, **options) == 200

        def newest() -> str:
            return str(self.server.data("GET", f"{BACKUPS}/restores")["items"][0]["state"])

        wait_until(lambda: newest() != "running", "the restore")
        return newest()

    def raise_what_nobody_catches(self) -> None:
        """In threads, in destructors, as warnings; and holds the loop until the watchdog tells where."""
        for user_id in ("log", "bug", "uncaught"):
            for secret in (TOKEN, SECRET):
                self.ask("POST", "/sessions", json={"user_id": user_id, "token": secret})
        self.ask("POST", "/sessions", json={"user_id": "held", "token": TOKEN})
        for message in ("unexpected: a thread ended", "the event loop goes on"):
            wait_until(partial(self._log_has, message), message)

    def _log_has(self, message: str) -> bool:
        return message in self.server.stdout

    def read_pages(self) -> None:
        for name, accept in (("", "text/plain"), (" OpenMetrics", OPENMETRICS), (" protobuf", PROTOBUF)):
            self.said[f"metrics{name}"] = self.server.exchange("GET", "/metrics", headers={"Accept": accept})[2]
        self.said["status"] = self.server.exchange("GET", "/admin/v1/status/summary")[2]
        for path in ("/ready?verbose", "/admin/v1/audit/logs?size=100", "/admin/v1/config", "/admin/v1/keys?size=100"):
            assert self.ask("GET", path) == 200
        assert self.ask("GET", "/console", headers=BROWSER) == 200

    def spans(self) -> bytes:
        """All exported spans as they went over the wire, when there are none left to send."""
        queued = "tokmesh_trace_queue_spans 0\n"
        wait_until(lambda: queued.encode() in self.server.exchange("GET", "/metrics")[2], "the spans are exported")
        return b"".join(body for _, _, _, body in self.receiver.requests)

    def command_lines(self) -> str:
        newest = max((self.server.directory / "snapshots").iterdir())
        lines = (
            ("key", "list"), ("key", "list", "--json"), ("key", "disable", TOKEN), ("log-level", "set", SECRET),
            ("log-level", "get"), ("config", "show"), ("config", "check", f"--server.http.address={TOKEN}"),
            ("config", "check", f"--{SECRET}.x=1"),
            ("key", "create", "--role=issuer", f"--allow={SECRET}"),
            ("backup", "list"), ("backup", "fetch", TOKEN, f"/{SECRET}/{TOKEN}"), ("backup", "restore", TOKEN),
            ("backup", "restore", f"--to-time={SECRET}"), ("backup", "verify", str(newest)),
        )  # fmt: skip
        done = [self.server.command_line(*line) for line in lines]
        unused = f"--storage.dir={self.server.directory}-unused"
        bug = {"PYTHONPATH": self.path, "BUG": f"{TOKEN} {SECRET}"}
        done.append(run_command("version", env=bug))
        bug["BUG"] += f" {PLANTED[0].digest.hex()}"
        done.append(run_command("serve", unused, "--server.http.address=127.0.0.1:0", env=bug))
        assert [each.returncode for each in done[-2:]] == [1, 1]
        return "\n".join(each.stdout + each.stderr for each in done)

    def files(self) -> Iterator[tuple[str, bytes]]:
        for path in self.server.directory.rglob("*"):
            if path.is_file():
                yield str(path.relative_to(self.server.directory)), path.read_bytes().rstrip(b"\0")
            if path.suffix == ".tms":
                with SnapshotReader(path) as reader:
                    yield f"snapshots/{path.name}, decompressed", b"".join(raw for _, raw in reader.contents())


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Watched, dict[str, str | bytes]]]:
    """All sinks of a server that has seen everything, and then crashed."""
    with faulty_receiver() as receiver:
        watched = Watched(tmp_path_factory.mktemp("watched"), receiver)
        server = watched.server
        try:
            for canary in watched.planted:
                for case in CASES:
                    watched.plant(case, canary.secret)
            watched.back_up()
            watched.raise_what_nobody_catches()
            watched.ask("GET", "/health", headers={"traceparent": TRACEPARENT, "tracestate": "vendor=kept"})
            watched.ask("POST", "/tokens/validate", json={"token": watched.token, "surprise": watched.admin_key})
            watched.ask("GET", f"/sessions/{watched.token}", key=watched.admin_key + "x")
            watched.ask("POST", f"/users/{watched.token}/sessions/revoke", json={})
            watched.ask("POST", f"/users/{watched.admin_key.split(':')[1]}/sessions/revoke", json={})
            watched.ask("POST", f"/users/{USER_ID}/sessions/revoke", json={})
            watched.read_pages()
            watched.said["command line"] = watched.command_lines()
            watched.said["spans"] = watched.spans()
            lines = server.log_lines()
            server.send_signal(signal.SIGSEGV)
            assert server.wait() == -signal.SIGSEGV
            first_key = watched.admin_key  # shown once, on purpose
            sinks: dict[str, str | bytes] = {**watched.said, "log": server.stdout, "crash": server.stderr.replace(first_key, "", 1)}
            assert len(lines) > 50
            yield watched, sinks
        finally:
            server.kill()


def test_every_sink_was_reached(everything: tuple[Watched, dict[str, str | bytes]]) -> None:
    """What is silent cannot leak, and proves nothing."""
    watched, sinks = everything
    log = str(sinks["log"])
    assert "bug: bug" in log and "tmtk_[redacted]" in log and "tmas_[redacted]" in log, "the bug told all it knew"
    assert '"logger":"tokmesh.sessions"' in log and '"level":"DEBUG"' in log
    assert '"audit":true' in log
    assert "TM-SYS-5000" in str(sinks["error answer"]) and "TM-TOKN-4000" in str(sinks["error answer"])
    told_admins = str(sinks["answer to an administrator"])
    assert '"event":"user.sessions_revoked"' in told_admins and '"event":"restore.begun"' in told_admins
    assert "TM-ADMIN-4221" in told_admins and '"state":"failed"' in told_admins and "disk_error" in told_admins
    assert '"restored"' in log and '"the restore failed"' in log and "a snapshot could not be taken" in log
    for told in ("bug of a thread: ", "bug of a destructor: ", "bug that warns: ", "the line a stack shows: "):
        assert f"{told}tm" in log, told
    assert "# HELP tokmesh_" in str(sinks["metrics"]) and "# EOF" in str(sinks["metrics OpenMetrics"])
    assert str(sinks["metrics OpenMetrics"]).count('# {trace_id="') > 20 and TRACEPARENT[3:35] in str(sinks["metrics protobuf"])
    spans = watched.receiver.spans()
    assert len({span.name for span in spans}) > len(CASES) and len(spans) > 1000
    assert {span.trace_state for span in spans} == {"", "vendor=kept"}
    assert '"conditions"' in str(sinks["status"]) and "<html" in str(sinks["console"])
    assert "Fatal Python error: Segmentation fault" in str(sinks["crash"])
    for told in ("KEY ID", "TM-CFG-1001", "unexpected: the server ends", "bug at the start: tmtk_", "TM-SYS-5000"):
        assert told in str(sinks["command line"])
    assert any(TOKEN.encode() in content for name, content in watched.files() if name.startswith("log/")), "a session's own data"
    assert any(TOKEN.encode() in content for name, content in watched.files() if name.endswith("decompressed")), "and in snapshots"


def test_no_sink_carries_a_secret(everything: tuple[Watched, dict[str, str | bytes]]) -> None:
    watched, sinks = everything
    assert leaks([*watched.real, *watched.planted], sinks) == []


def test_no_hash_goes_out_as_it_is_in_bytes(everything: tuple[Watched, dict[str, str | bytes]]) -> None:
    watched, sinks = everything
    for name in ("spans", "metrics protobuf"):
        content = sinks[name]
        assert isinstance(content, bytes)
        assert not [canary.name for canary in (*watched.real, *watched.planted) if canary.digest in content], name


def test_what_is_counted_traced_or_drawn_names_no_user_session_or_key(
    everything: tuple[Watched, dict[str, str | bytes]],
) -> None:
    watched, sinks = everything
    for name in NAMELESS:
        content = sinks[name]
        text = content if isinstance(content, str) else content.decode("utf-8", "replace")
        for told in (USER_ID, watched.session_id, watched.admin_key.split(":")[0]):
            assert told not in text, (name, told)
        assert re.search(r"tm(ss|ak)-[0-9a-z]{26}", text) is None, name


def test_no_file_carries_a_secret_but_for_the_data_of_sessions_in_log_and_snapshots(
    everything: tuple[Watched, dict[str, str | bytes]],
) -> None:
    watched, _ = everything
    files = dict(watched.files())
    assert {"audit.jsonl", "node_id"} <= set(files)
    assert leaks(watched.real, files) == []
    others = {name: content for name, content in files.items() if not name.startswith(("log/", "snapshots/"))}
    assert leaks(watched.planted, others) == []
    assert all(name.startswith("snapshots/snapshot-") for name in files if name.startswith("snapshots/")), "no upload is left"


secrets = st.sampled_from([form for canary in PLANTED for form in canary.forms])
around = st.text(st.sampled_from(" \t\n\"'\\{}[]():;,=…é\x00/"), max_size=3)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3), st.tuples(inner, inner))


@st.composite
def placed(draw: st.DrawFn) -> Any:
    """A value with a secret somewhere in it: as text, as bytes, as a key."""
    secret = draw(around) + draw(secrets) + draw(around)
    leaf: Any = draw(st.sampled_from([secret, secret.encode(), {secret: 1}, ValueError(secret), [secret, 7]]))
    for _ in range(draw(st.integers(0, 5))):
        leaf = draw(st.sampled_from([[leaf], {"k": leaf}, (1, leaf), {"a": 1, "b": [leaf]}]))
    return leaf


@settings(max_examples=400, deadline=None)
@given(placed(), st.sampled_from(["message", "argument", "field", "name of a field", "logger", "exception", "cause", "stack"]))
def test_wherever_a_secret_stands_in_a_record_the_line_is_free_of_it(value: Any, place: str) -> None:
    text = value if isinstance(value, str) else str(value)
    line = {
        "message": lambda: make(text),
        "argument": lambda: make("%s and %r", value, value),
        "field": lambda: make("m", extra={"x": value, "request_id": text}),
        "name of a field": lambda: make("m", extra={f"x{text}": 1}),
        "logger": lambda: make("m", extra={"name": text}),
        "exception": lambda: make("m", exc_info=(ValueError, ValueError(value), None)),
        "cause": lambda: make("m", exc_info=(KeyError, caused(value), None)),
        "stack": lambda: make("m", extra={"stack_info": text}),
    }[place]()
    assert leaks(list(PLANTED), {place: json.loads(json.dumps(line))}) == []
    assert leaks(list(PLANTED), {place: json.dumps(json.loads(line), ensure_ascii=False)}) == []


def caused(value: Any) -> KeyError:
    try:
        try:
            raise ValueError(value)
        except ValueError as error:
            raise KeyError(str(value)) from error
    except KeyError as error:
        return error
