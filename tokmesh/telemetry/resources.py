"""What the process uses and what it may use: CPU, memory, disk, file descriptors. Linux only; read at a scrape, from
its thread.

Invariants: nothing is guessed. Cores are those of the affinity mask, less if a cgroup quota allows less; the memory
limit is the smallest of the process's cgroups (v2 or v1, its own and all above it that are visible), else the machine's
RAM; free disk space is what a process without privileges may still use. A figure that cannot be read is NaN, never 0.
"""

import math
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

CPU_WINDOW_SECONDS_MIN: Final = 1.0
LIMITS_SECONDS_MAX: Final = 10.0  # age at which limits are read anew: operators change them while we run
CGROUP_DEPTH_MAX: Final = 32


class ResourceFigures(NamedTuple):
    """One reading. Bytes, seconds (start: Unix time), cores; ratio 0 to 1."""

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


def _number(path: Path) -> int | None:
    """The integer in a file; None if there is no such file, or "max", or anything else in it."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


class Limits:
    """Cores and memory that the process may use. proc and cgroup: where those file systems are mounted."""

    def __init__(self, proc: Path, cgroup: Path) -> None:
        self._proc = proc
        self._cgroup = cgroup

    def cores(self) -> float:
        """CPUs of the affinity mask, or the tightest cgroup quota if that is less."""
        cores = float(len(os.sched_getaffinity(0)))
        for directory in self._directories(""):
            try:
                quota, period = (directory / "cpu.max").read_text().split()
                cores = min(cores, int(quota) / int(period))
            except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max": no quota here
                continue
        for directory in self._directories("cpu"):
            quota_us, period_us = _number(directory / "cpu.cfs_quota_us"), _number(directory / "cpu.cfs_period_us")
            if quota_us and period_us and quota_us > 0:
                cores = min(cores, quota_us / period_us)
        return cores

    def memory_bytes(self) -> int:
        """The tightest cgroup limit, or the machine's RAM if that is less."""
        limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        for controller, name in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
            for directory in self._directories(controller):
                value = _number(directory / name)
                if value is not None and value > 0:
                    limit = min(limit, value)
        return limit

    def _directories(self, controller: str) -> Iterator[Path]:
        """The process's cgroup and those above it: of the unified hierarchy for "", else of a v1 controller."""
        try:
            lines = (self._proc / "self" / "cgroup").read_text().splitlines()
        except OSError:
            return
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if controller not in controllers.split(","):
                continue
            mounts = ("", "unified") if controller == "" else (controller, controllers)
            for mount in dict.fromkeys(mounts):
                directory = self._cgroup / mount / path.lstrip("/")
                for _ in range(CGROUP_DEPTH_MAX):
                    yield directory
                    if directory == self._cgroup / mount:
                        break
                    directory = directory.parent


class Resources:
    """Reads the figures. directory: the data directory, whose file system is watched.

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
        self._limits = Limits(proc, cgroup)
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
