"""Cores and memory that the process may use, as the kernel will enforce them.

Invariants: of nested cgroups the tightest counts, whichever level it is at; a cgroup that allows more than the machine
has changes nothing; what cannot be read limits nothing.
"""

import os
from collections.abc import Callable
from pathlib import Path

from tokmesh.telemetry.cgroups import Cgroups


def _number(path: Path) -> int | None:
    """The integer in a file; None if there is no such file, or "max", or anything else in it."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _affinity() -> int:
    return len(os.sched_getaffinity(0))


class Limits:
    """proc: where procfs is mounted; affinity: number of CPUs the process may run on."""

    def __init__(self, proc: Path, cgroups: Cgroups, affinity: Callable[[], int] = _affinity) -> None:
        self._proc = proc
        self._cgroups = cgroups
        self._affinity = affinity

    def cores(self) -> float:
        """CPUs of the affinity mask, or the tightest cgroup quota if that is less."""
        cores = float(self._affinity())
        for directory in self._cgroups.directories(""):
            try:
                quota, period = (directory / "cpu.max").read_text().split()
                cores = min(cores, int(quota) / int(period))
            except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max": no quota here
                continue
        for directory in self._cgroups.directories("cpu"):
            quota_us, period_us = _number(directory / "cpu.cfs_quota_us"), _number(directory / "cpu.cfs_period_us")
            if quota_us and period_us and quota_us > 0:
                cores = min(cores, quota_us / period_us)
        return cores

    def memory_bytes(self) -> int:
        """The tightest cgroup limit, or the machine's RAM if that is less."""
        limit = self._ram_bytes()
        for controller, name in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
            for directory in self._cgroups.directories(controller):
                value = _number(directory / name)
                if value is not None and value > 0:
                    limit = min(limit, value)
        return limit

    def _ram_bytes(self) -> int:
        # procfs first: what virtualises a machine for a container (lxcfs) does it there, and sysconf asks the kernel.
        try:
            lines = (self._proc / "meminfo").read_text().splitlines()
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:"))
        except (OSError, ValueError, IndexError, StopIteration):
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
