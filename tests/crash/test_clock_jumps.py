"""A short form of `tests.crash.clock_jumps`, and that its clock really jumps."""

from pathlib import Path

from tests.crash import clock_jumps
from tests.support.rounds import short_form
from tests.support.server import TokMeshProcess

YEAR_MS = 365 * 86_400_000


def test_sessions_end_in_time_while_the_wall_clock_jumps_by_ten_years(tmp_path: Path) -> None:
    count, seed = short_form("TOKMESH_JUMPS", 1)
    ended, jumps = clock_jumps.run(count, seed, tmp_path)
    assert ended == 60 * count and jumps > 10


def test_the_wall_clock_of_such_a_server_does_jump(tmp_path: Path) -> None:
    """The test above proves nothing unless the server would see another time: a start, which asks for it, does."""
    offset = tmp_path / "offset"
    clock_jumps.jump(offset, "+0")
    with TokMeshProcess(tmp_path, env=clock_jumps.environment(offset)) as server:
        first_ms = server.request("GET", "/health", key=None)[1]["timestamp"]
        clock_jumps.jump(offset, "+10y")
        assert server.request("GET", "/health", key=None)[1]["timestamp"] - first_ms < 60_000
        server.stop()
        server.start()
        assert server.request("GET", "/health", key=None)[1]["timestamp"] - first_ms > 9 * YEAR_MS
