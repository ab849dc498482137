"""What a measurement is: requests, time, latency, and the processor time the server spent on them.

Processor time is utime and stime of /proc/<pid>/stat, summed over the process and its children, before and after. How busy
the server's core was comes from /proc/stat: a good part of the kernel's network work is charged to no process.
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


def core_busy_s(core: int) -> float:
    """Seconds since boot in which the core did anything; idle and waiting for a disk are not."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *figures = line.split()
        if name == f"cpu{core}":
            user, nice, system, _, _, irq, softirq, steal = (int(figure) for figure in figures[:8])
            return (user + nice + system + irq + softirq + steal) * TICK_S
    raise AssertionError(f"/proc/stat has no cpu{core}")


def resident_bytes(pid: int) -> int:
    """Resident set of one process, shared memory included."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("VmRSS is in every /proc/<pid>/status")


def sample(
    operations: float, duration_s: float, cpu: CpuTime, busy_s: float, percentiles_ms: tuple[float, float, float]
) -> Sample:
    """busy_s: of the server's core, as core_busy_s counts."""
    return Sample(
        operations=operations,
        operations_per_s=operations / duration_s,
        user_us=cpu.user_s * 1e6 / operations,
        system_us=cpu.system_s * 1e6 / operations,
        cpu_busy=min(1.0, busy_s / duration_s),
        p50_ms=percentiles_ms[0],
        p99_ms=percentiles_ms[1],
        p999_ms=percentiles_ms[2],
    )


def median(samples: list[Sample]) -> Sample:
    """Field-wise median of the rounds."""
    rounds = [asdict(one) for one in samples]
    return Sample(**{field.name: statistics.median(one[field.name] for one in rounds) for field in fields(Sample)})
