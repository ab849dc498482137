"""How long a person waits: importing the command line, and from starting an empty server to ready."""

import statistics
import subprocess
import sys
import time

from benchmarks.load import tokmesh_server
from benchmarks.load.process import BenchmarkError, Processes
from benchmarks.load.subjects import Cores

IMPORT = "import time; start = time.perf_counter(); import tokmesh.cli; print(time.perf_counter() - start)"
ROUNDS = 5


def import_s() -> float:
    """Seconds that `import tokmesh.cli` takes inside a fresh interpreter, median, caches warm."""
    times = []
    for _ in range(ROUNDS):
        finished = subprocess.run(
            [sys.executable, "-c", IMPORT], capture_output=True, text=True, timeout=60, check=False
        )
        if finished.returncode != 0:
            raise BenchmarkError(f"import tokmesh.cli failed: {finished.stderr}")
        times.append(float(finished.stdout))
    return statistics.median(times)


def ready_s(processes: Processes, cores: Cores) -> float:
    """Seconds from starting the interpreter to /ready, with an empty directory (a first admin key included), median."""
    times = []
    for number in range(ROUNDS):
        begun = time.perf_counter()
        server = tokmesh_server.launch(processes, f"tokmesh-start-{number}", cores.server)
        times.append(time.perf_counter() - begun)
        server[0].stop()
    return statistics.median(times)
