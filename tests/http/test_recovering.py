"""A server whose log is being replayed: probes answer, nothing else is said, it can be stopped, and damage ends it as ever."""

import hashlib
import http.client
import json
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.crash.kills import strace
from tests.support.server import TokMeshProcess
from tests.support.waiting import wait_until
from tokmesh._core.clock import Clock
from tokmesh.cli.local import call
from tokmesh.errors import ApiError
from tokmesh.log.appender import Appender
from tokmesh.log.record import SessionCreated, decode
from tokmesh.storage import recovery

# Each read of 4 MB takes so long: a log of 64 MB at least five seconds, however fast the machine is.
SLOW_READS = ["-o", "/dev/null", "-e", "trace=preadv,preadv2", "-e", "inject=preadv,preadv2:delay_exit=300000"]
SEGMENT_BYTES = 64 << 20
DAY_MS = 86_400_000


class Slowly:
    """A server with some history that starts again while its disk is slow."""

    def __init__(self, folder: Path) -> None:
        self.server = TokMeshProcess(folder)
        self.server.start()
        self.token = self.server.create_session("alice")["token"]
        assert self.server.stop() == 0
        self.server.wrapper = strace(SLOW_READS)
        self.server.spawn()
        wait_listening(self.server)

    @property
    def server_pid(self) -> int:
        """Of the server itself, below strace."""
        return int(Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children").read_text().split()[0])

    def ready(self, path: str = "/ready", key: str | None = None) -> tuple[int, dict[str, Any]]:
        status, answer = self.server.request("GET", path, key=key)
        return status, answer

    def wait_ready(self) -> None:
        key = self.server.admin_key
        self.server.wait_ready()
        self.server._admin_key = key


def wait_listening(server: TokMeshProcess) -> None:
    deadline = time.monotonic() + 60
    while not server._find_ports():
        assert time.monotonic() < deadline, server.output
        time.sleep(0.01)


@pytest.fixture
def slowly(tmp_path: Path) -> Any:
    made = Slowly(tmp_path)
    yield made
    made.server.kill()


def test_probes_answer_and_everything_else_is_told_to_come_back(slowly: Slowly) -> None:
    server = slowly.server
    assert server.request("GET", "/health", key=None)[0] == 200
    status, answer = slowly.ready()
    assert (status, answer["code"], answer["details"]) == (503, "TM-SYS-5030", {"failed": ["recovery"]})
    asked = [
        ("POST", "/tokens/validate", {"token": slowly.token}), ("POST", "/sessions", {"user_id": "u"}), ("GET", "/sessions", None),
        ("GET", "/metrics", None), ("GET", "/admin/v1/keys", None), ("POST", "/admin/v1/log-level", {"level": "debug"}),
    ]  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for key in (server.admin_key, "tmak-0:wrong", None):
        for method, path, body in asked:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            for _ in range(2):  # the second time with a head that is known
                connection.request(method, path, json.dumps(body) if body else None, headers)
                refused = connection.getresponse()
                envelope = json.loads(refused.read())
                assert (refused.status, envelope["code"]) == (503, "TM-SYS-5030"), (method, path, envelope)
                assert envelope["details"] == {"reason": "recovery"} and int(refused.headers["Retry-After"]) >= 1
    assert server.request("GET", "/nope", key=None)[0] == 404
    assert server.request("PUT", "/sessions", key=None)[0] == 405
    assert slowly.ready()[1]["details"] == {"failed": ["recovery"]}, "the log was still being replayed all the time"

    slowly.wait_ready()
    headers = {"Authorization": f"Bearer {server.admin_key}"}
    connection.request("POST", "/tokens/validate", json.dumps({"token": slowly.token}), headers)
    answered = connection.getresponse()
    assert answered.status == 200 and json.loads(answered.read())["data"]["valid"] is True, "on the connection made before"
    connection.close()


def test_progress_is_for_the_local_administrator_only(slowly: Slowly) -> None:
    server = slowly.server
    assert slowly.ready("/ready?verbose", server.admin_key)[1]["details"] == {"failed": ["recovery"]}, "no key can be judged yet"

    def progress() -> str:
        with pytest.raises(ApiError) as caught:
            call(server.directory, "GET", "/ready?verbose")
        assert caught.value.details is not None
        return str(caught.value.details["reasons"]["recovery"])

    assert progress().startswith("replaying the log: ")
    wait_until(lambda: f"of {SEGMENT_BYTES} bytes" in progress(), "the size of the log is known")
    slowly.wait_ready()
    assert slowly.ready("/ready?verbose", server.admin_key)[0] == 200


def test_a_stop_during_the_replay_is_clean(slowly: Slowly) -> None:
    server = slowly.server
    assert slowly.ready()[0] == 503
    os.kill(slowly.server_pid, signal.SIGTERM)
    assert server.wait() == 0
    messages = [line["message"] for line in server.log_lines()]
    assert messages[-1] == "stopped before serving" and not {"serving", "log replayed"} & set(messages)
    assert not (server.directory / "admin.sock").exists() and server.stderr == ""
    server.wrapper = []
    key = server.admin_key
    server.start()
    assert server.validate(slowly.token, key=key)["valid"] is True


def test_a_hangup_during_the_replay_does_not_end_it(slowly: Slowly) -> None:
    os.kill(slowly.server_pid, signal.SIGHUP)
    slowly.wait_ready()


def test_a_second_process_takes_neither_socket_nor_log(slowly: Slowly) -> None:
    done = slowly.server.command_line("serve", "--server.http.address=127.0.0.1:0")
    assert done.returncode == 69 and "TM-SYS-5001" in done.stderr
    assert (slowly.server.directory / "admin.sock").exists()
    assert slowly.ready()[1]["details"] == {"failed": ["recovery"]}


def test_a_damaged_log_ends_the_start_with_its_message(tmp_path: Path) -> None:
    server = TokMeshProcess(tmp_path)
    server.start()
    for number in range(5):
        server.create_session(f"user-{number}")
    server.kill()
    [segment] = [path for path in (server.directory / "log").iterdir() if b"user-1" in path.read_bytes()]
    damaged = bytearray(segment.read_bytes())
    damaged[damaged.index(b"user-1")] ^= 1
    segment.write_bytes(damaged)
    server.spawn()
    assert server.wait() == 69
    assert server.stderr.startswith("tokmesh: TM-SYS-5001: log damaged: ") and segment.name in server.stderr
    assert "serving" not in server.stdout and "Traceback" not in server.stderr


def write_history(directory: Path, count: int) -> None:
    """Adds `count` sessions to the log of a server that is not running."""
    end, _ = recovery.replay(directory, SEGMENT_BYTES, decode, lambda sequence, record: None)
    clock = Clock()
    appender = Appender(directory, end, SEGMENT_BYTES, clock, logging.getLogger("tests"))
    now_ms = clock.now_ms()
    for start in range(0, count, 1000):
        records = [
            SessionCreated(
                now_ms, number.to_bytes(16, "big"), hashlib.sha256(b"%d" % number).digest(), f"user-{number}", "", "", "agent", "",
                now_ms + DAY_MS, 0, b"{}", (),
            ).encode()
            for number in range(start + 1, start + 1001)
        ]  # fmt: skip
        assert appender.make_room(56 + sum(len(record) + 4 for record in records), False)
        appender.write(records)
    appender.close(seal=True)


def test_a_large_log_is_replayed_beside_the_loop(tmp_path: Path) -> None:
    with TokMeshProcess(tmp_path) as server:
        key, token = server.admin_key, server.create_session("alice")["token"]
        assert server.stop() == 0
        write_history(server.directory / "log", 300_000)
        server.spawn()
        wait_listening(server)
        alive_while_replaying = 0
        while True:
            assert server.request("GET", "/health", key=None)[0] == 200
            status, answer = server.request("GET", "/ready", key=None)
            if status == 200:
                break
            assert answer["details"]["failed"] == ["recovery"]
            alive_while_replaying += 1
        assert alive_while_replaying >= 3
        metrics = str(server.request("GET", "/metrics", key=key)[1])
        assert "tokmesh_sessions_active_total 300001" in metrics.splitlines()
        assert server.validate(token, key=key)["valid"] is True
