"""What a measurement is: requests, time, latency, and the processor time the server spent on them.

Processor time is utime and stime of /proc/<pid>/stat, summed over the process and its children, before and after.
"""

import os
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class CpuTime:
    """Processor seconds."""

    user_s: float
    system_s: float

    def __sub__(self, earlier: "CpuTime") -> "CpuTime":
        return CpuTime(self.user_s - earlier.user_s, self.system_s - earlier.system_s)


@dataclass(frozen=True)
class Sample:
    """One measured burst. `operations` counts what the row counts: requests, or tokens in a batch."""

    operations: float
    operations_per_s: float
    user_us: float  # server processor time per operation
    system_us: float
    cpu_busy: float  # share of the server's core that was used
    p50_ms: float
    p99_ms: float
    p999_ms: float

    @property
    def cpu_us(self) -> float:
        return self.user_us + self.system_us


def family(pid: int) -> list[int]:
    """The process and all its living descendants."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found.extend(int(child) for child in children.read_text().split())
    return found


def cpu_time(pids: Iterable[int]) -> CpuTime:
    """Processor time so far of the processes named and their descendants."""
    user_ticks = system_ticks = 0
    for root in pids:
        for pid in family(root):
            after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            user_ticks += int(after_name[11])
            system_ticks += int(after_name[12])
    return CpuTime(user_ticks * TICK_S, system_ticks * TICK_S)


def resident_bytes(pid: int) -> int:
    """Resident set of one process, shared memory included."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("VmRSS is in every /proc/<pid>/status")


def sample(operations: float, duration_s: float, cpu: CpuTime, percentiles_ms: tuple[float, float, float]) -> Sample:
    return Sample(
        operations=operations,
        operations_per_s=operations / duration_s,
        user_us=cpu.user_s * 1e6 / operations,
        system_us=cpu.system_s * 1e6 / operations,
        cpu_busy=(cpu.user_s + cpu.system_s) / duration_s,
        p50_ms=percentiles_ms[0],
        p99_ms=percentiles_ms[1],
        p999_ms=percentiles_ms[2],
    )


def median(samples: list[Sample]) -> Sample:
    """Field-wise median of the rounds."""
    rounds = [asdict(one) for one in samples]
    return Sample(**{field.name: statistics.median(one[field.name] for one in rounds) for field in fields(Sample)})
