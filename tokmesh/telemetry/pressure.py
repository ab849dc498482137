"""Pressure stall information: how long tasks waited for CPU, memory or disk, as the kernel counts it (Linux 4.20).

Invariants: the figures are those of the process's own cgroup where the kernel keeps them (version 2), else the machine's;
what the kernel does not tell (no PSI, or no `full` for the CPU) is absent, not 0. They only grow, in seconds.
"""

from pathlib import Path
from typing import Final

from tokmesh.telemetry.cgroups import Cgroups
from tokmesh.telemetry.node_metrics import PRESSURE_EXTENTS, PRESSURE_RESOURCES

US_PER_SECOND: Final = 1e6


class Pressure:
    """proc: where procfs is mounted."""

    def __init__(self, proc: Path, cgroups: Cgroups) -> None:
        self._proc = proc
        self._cgroups = cgroups

    def read(self) -> tuple[tuple[tuple[str, str], float], ...]:
        """((resource, extent), seconds waited in all) of each pair that the kernel tells."""
        own = next(self._cgroups.directories(""), None)
        found: list[tuple[tuple[str, str], float]] = []
        for resource in PRESSURE_RESOURCES:
            places = [self._proc / "pressure" / resource]
            if own is not None:
                places.insert(0, own / f"{resource}.pressure")
            for place in places:
                totals = _totals_us(place)
                if totals:
                    found += [
                        ((resource, extent), totals[extent] / US_PER_SECOND) for extent in PRESSURE_EXTENTS if extent in totals
                    ]
                    break
        return tuple(found)


def _totals_us(path: Path) -> dict[str, int]:
    """`some avg10=0.00 avg60=0.00 avg300=0.00 total=123` and the like → {"some": 123}; {} for what is not readable."""
    try:
        lines = path.read_text().splitlines()  # reading fails, not opening, where PSI is compiled in but off
        return {line.split()[0]: int(line.rsplit("total=", 1)[1]) for line in lines}
    except (OSError, ValueError, IndexError):
        return {}
