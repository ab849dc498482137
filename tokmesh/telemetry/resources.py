"""What the process uses and what it may use: CPU, memory, disk, file descriptors, and what it waited for. Linux only;
read at a scrape, from its thread.

Invariants: nothing is guessed. Cores and memory are what `limits.py` finds; free disk space is what a process without
privileges may still use. A figure that cannot be read is NaN, never 0; a pressure that is not told is absent.
"""

import math
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from tokmesh.telemetry.cgroups import Cgroups
from tokmesh.telemetry.limits import Limits
from tokmesh.telemetry.pressure import Pressure

CPU_WINDOW_SECONDS_MIN: Final = 1.0
LIMITS_SECONDS_MAX: Final = 10.0  # age at which limits are read anew: operators change them while we run


class ResourceFigures(NamedTuple):
    """One reading. Bytes, seconds (start: Unix time), cores; ratio 0 to 1. pressure: see `Pressure.read`."""

    cpu_usage_ratio: float
    cpu_available_cores: float
    cpu_seconds: float
    resident_bytes: float
    virtual_bytes: float
    memory_limit_bytes: float
    disk_free_bytes: float
    disk_total_bytes: float
    open_fds: float
    max_fds: float
    process_start_seconds: float
    pressure: tuple[tuple[tuple[str, str], float], ...]


class Resources:
    """Reads the figures. directory: the data directory, whose file system is watched. proc, cgroup: where those file
    systems are mounted.

    The CPU ratio is over the time since the reading before, at least CPU_WINDOW_SECONDS_MIN: within that the last one
    is repeated (0 at first). One thread reads at a time.
    """

    def __init__(
        self,
        directory: Path,
        *,
        proc: Path = Path("/proc"),
        cgroup: Path = Path("/sys/fs/cgroup"),
        monotonic: Callable[[], float] = time.monotonic,
        cpu_time: Callable[[], float] = time.process_time,
    ) -> None:
        self._directory = directory
        self._proc = proc
        cgroups = Cgroups(proc, cgroup)
        self._limits = Limits(proc, cgroups)
        self._pressure = Pressure(proc, cgroups)
        self._monotonic = monotonic
        self._cpu_time = cpu_time
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._process_start_seconds = self._read_process_start()
        self._ratio = 0.0
        self._window_start, self._window_cpu = monotonic(), cpu_time()
        self._read_limits(self._window_start)

    def read(self) -> ResourceFigures:
        """The figures of this moment. Never raises for what cannot be read."""
        now, cpu_seconds = self._monotonic(), self._cpu_time()
        if now - self._limits_read_at >= LIMITS_SECONDS_MAX:
            self._read_limits(now)
        elapsed = now - self._window_start
        if elapsed >= CPU_WINDOW_SECONDS_MIN:
            self._ratio = min(1.0, max(0.0, (cpu_seconds - self._window_cpu) / elapsed / self._cores))
            self._window_start, self._window_cpu = now, cpu_seconds
        virtual_bytes, resident_bytes = self._read_memory()
        disk_free_bytes, disk_total_bytes = self._read_disk()
        max_fds = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return ResourceFigures(
            cpu_usage_ratio=self._ratio,
            cpu_available_cores=self._cores,
            cpu_seconds=cpu_seconds,
            resident_bytes=resident_bytes,
            virtual_bytes=virtual_bytes,
            memory_limit_bytes=self._memory_limit_bytes,
            disk_free_bytes=disk_free_bytes,
            disk_total_bytes=disk_total_bytes,
            open_fds=self._read_open_fds(),
            max_fds=math.inf if max_fds == resource.RLIM_INFINITY else max_fds,
            process_start_seconds=self._process_start_seconds,
            pressure=self._pressure.read(),
        )

    def _read_limits(self, now: float) -> None:
        self._limits_read_at = now
        self._cores = self._limits.cores()
        self._memory_limit_bytes = self._limits.memory_bytes()

    def _read_memory(self) -> tuple[float, float]:
        try:
            pages = (self._proc / "self" / "statm").read_text().split()
            return int(pages[0]) * self._page_bytes, int(pages[1]) * self._page_bytes
        except (OSError, ValueError, IndexError):
            return math.nan, math.nan

    def _read_disk(self) -> tuple[float, float]:
        try:
            status = os.statvfs(self._directory)
        except OSError:
            return math.nan, math.nan
        return status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize

    def _read_open_fds(self) -> float:
        # Linux ≥ 6.2 gives the count as the directory's size; before that it is 0, and we list, once per open
        # descriptor.
        directory = self._proc / "self" / "fd"
        try:
            return directory.stat().st_size or len(os.listdir(directory)) - 1  # less the one that lists
        except OSError:
            return math.nan

    def _read_process_start(self) -> float:
        try:
            # The name in parentheses may hold spaces; field 22, the start in ticks since boot, is the 20th after it.
            ticks = int((self._proc / "self" / "stat").read_text().rsplit(")", 1)[1].split()[19])
            boot = next(line for line in (self._proc / "stat").read_text().splitlines() if line.startswith("btime "))
            return int(boot.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError, StopIteration):
            return math.nan
