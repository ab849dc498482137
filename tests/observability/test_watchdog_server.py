"""The watchdog of a real server whose loop is held by a signal handler that somebody put there."""

import signal
from pathlib import Path

from tests.observability.test_server import value
from tests.support.server import ROOT, TokMeshProcess
from tests.support.waiting import wait_until

# Python runs it before anything else of the server; the handler runs on the main thread, inside the loop.
HOLD_THE_LOOP = """
import signal, time
def holds_the_loop(number, frame):
    time.sleep(2)
signal.signal(signal.SIGUSR1, holds_the_loop)
"""


def test_a_held_loop_is_in_the_log_with_its_stack_and_counts(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(HOLD_THE_LOOP)
    with TokMeshProcess(
        tmp_path, "--telemetry.watchdog.threshold=500ms", env={"PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}"}
    ) as server:
        before = value(server, "tokmesh_event_loop_stalls_total")
        server.send_signal(signal.SIGUSR1)

        def lines(message: str) -> list[dict[str, object]]:
            return [line for line in server.log_lines() if line["message"] == message and line["logger"] == "tokmesh.watchdog"]

        wait_until(lambda: bool(lines("the event loop goes on")), "the stall is told to be over")
        held = [line for line in lines("the event loop is held") if "in holds_the_loop" in str(line["stack"])]
        assert held and held[0]["level"] == "WARN" and "time.sleep(2)" in str(held[0]["stack"])
        assert max(float(str(line["held_seconds"])) for line in lines("the event loop goes on")) > 1.5
        assert value(server, "tokmesh_event_loop_stalls_total") >= before + 1
        wait_until(lambda: value(server, "tokmesh_event_loop_lag_seconds_count") > 0, "the loop's lag is sampled")
        server.stop()
        assert server.process is not None and server.process.returncode == 0
