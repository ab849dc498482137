"""strace put onto a server that is running already: its calls noted, or answered in our way, from a moment of our choosing."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.crash.kills import strace
from tests.support.waiting import wait_until


@contextlib.contextmanager
def traced(pid: int, output: Path, calls: str, *expressions: str) -> Iterator[None]:
    """While it lasts every thread of the process is traced, in `output`, with the paths of descriptors. calls: as strace takes
    them; expressions: further ones ("inject=…"), of which a count begins now, in each thread."""
    options = ["-y", "-o", str(output), "-e", f"trace={calls}", *(word for each in expressions for word in ("-e", each))]
    process = subprocess.Popen(strace([*options, "-p", str(pid)]), stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: process.poll() is not None or _is_traced(pid), "strace is attached")
        assert process.poll() is None, "strace could not attach: this test must run as root"
        yield
    finally:
        process.terminate()
        process.wait(60)


def _is_traced(pid: int) -> bool:
    """Whether all its threads are."""
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    return bool(tasks) and all("TracerPid:\t0\n" not in _status(task) for task in tasks)


def _status(task: Path) -> str:
    with contextlib.suppress(OSError):
        return (task / "status").read_text()
    return ""
