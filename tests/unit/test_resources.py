"""Resources: cgroup v1 and v2 limits, the CPU window, what cannot be read, and the real process."""

import dataclasses
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.observability.fakes import Fakes
from tokmesh.telemetry.cgroups import Cgroups
from tokmesh.telemetry.exposition import Exposition
from tokmesh.telemetry.limits import Limits
from tokmesh.telemetry.negotiation import TEXT
from tokmesh.telemetry.pressure import Pressure
from tokmesh.telemetry.resources import Resources

CORES = float(len(os.sched_getaffinity(0)))
RAM = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def limits(root: Path, membership: str, files: dict[str, str]) -> Limits:
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text(membership)
    for name, text in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Limits(root / "proc", Cgroups(root / "proc", root / "cgroup"))


@pytest.mark.parametrize(
    ("membership", "files", "cores", "memory"),
    [
        ("", {}, CORES, RAM),
        ("0::/\n", {"cpu.max": "max 100000\n", "memory.max": "max\n"}, CORES, RAM),
        ("0::/\n", {"cpu.max": "50000 100000\n", "memory.max": "1048576\n"}, 0.5, 1 << 20),
        # the tightest of the cgroup and those above it
        ("0::/a/b\n", {"a/cpu.max": "25000 100000", "a/b/cpu.max": "50000 100000", "a/memory.max": "4096"}, 0.25, 4096),
        # a container that sees its own cgroup only, at the root, under a path it cannot see
        ("0::/../x\n", {"cpu.max": "75000 100000"}, 0.75, RAM),
        ("0::/host/docker/1\n", {"memory.max": "8192"}, CORES, 8192),
        # v1, joint and single controllers; no limit is -1 or a huge number
        (
            "4:memory:/x\n3:cpu,cpuacct:/\n",
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "20000",
                "cpu,cpuacct/cpu.cfs_period_us": "100000",
                "memory/x/memory.limit_in_bytes": "65536",
                "memory/memory.limit_in_bytes": "9223372036854771712",
            },
            0.2,
            65536,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, CORES, RAM),
        ("0::/\n", {"cpu.max": "junk", "memory.max": ""}, CORES, RAM),
        ("0::/\n", {"cpu.max": "100 0", "memory.max": "-5"}, CORES, RAM),
        # mixed: v1 controllers beside a unified hierarchy
        (
            "4:memory:/\n0::/\n",
            {"memory/memory.limit_in_bytes": "12288", "unified/cpu.max": "10000 100000"},
            0.1,
            12288,
        ),
    ],
)
def test_limits(tmp_path: Path, membership: str, files: dict[str, str], cores: float, memory: int) -> None:
    found = limits(tmp_path, membership, files)
    assert (found.cores(), found.memory_bytes()) == (cores, memory)


def test_a_container_whose_procfs_tells_less_ram_has_less(tmp_path: Path) -> None:
    found = limits(tmp_path, "0::/\n", {})
    (tmp_path / "proc" / "meminfo").write_text("MemFree:  1 kB\nMemTotal:        2048 kB\n")
    assert found.memory_bytes() == 2048 * 1024
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:\n")
    assert found.memory_bytes() == RAM


PRESSURE = "some avg10=0.00 avg60=0.00 avg300=0.00 total={some}\nfull avg10=0.12 avg60=0.00 avg300=0.00 total={full}\n"


def pressure(root: Path, files: dict[str, str]) -> dict[tuple[str, str], float]:
    limits(root, "0::/pod/one\n", {})
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return dict(Pressure(root / "proc", Cgroups(root / "proc", root / "cgroup")).read())


def test_pressure_is_that_of_the_own_cgroup_and_else_the_machines(tmp_path: Path) -> None:
    found = pressure(
        tmp_path,
        {
            "cgroup/pod/one/cpu.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\n",  # no full for the CPU
            "cgroup/pod/memory.pressure": PRESSURE.format(some=77, full=77),  # of the neighbours too: not ours
            "proc/pressure/cpu": PRESSURE.format(some=9, full=9),
            "proc/pressure/memory": PRESSURE.format(some=250_000, full=125_000),
            "proc/pressure/io": "junk\n",
        },
    )
    assert found == {("cpu", "some"): 1.5, ("memory", "some"): 0.25, ("memory", "full"): 0.125}


def test_pressure_that_the_kernel_does_not_tell_is_absent_from_the_page(tmp_path: Path) -> None:
    assert pressure(tmp_path, {}) == {}
    fakes = Fakes(tmp_path)
    sources = dataclasses.replace(fakes.sources, resources=Resources(tmp_path, proc=tmp_path / "proc"))
    page = Exposition(sources).render_now(TEXT.content_type).decode()
    assert "# TYPE tokmesh_pressure_waiting_seconds_total counter\n" in page
    assert "\ntokmesh_pressure_waiting_seconds_total" not in page


def test_cpu_ratio_is_over_the_time_between_readings_of_at_least_a_second(tmp_path: Path) -> None:
    now, cpu = 100.0, 7.0
    resources = Resources(tmp_path, monotonic=lambda: now, cpu_time=lambda: cpu)
    assert resources.read().cpu_usage_ratio == 0
    now, cpu = 100.5, 7.5
    assert resources.read().cpu_usage_ratio == 0, "too soon to say"
    now, cpu = 102.0, 8.0
    cores = resources.read().cpu_available_cores
    assert resources.read().cpu_usage_ratio == pytest.approx(0.5 / cores)
    now, cpu = 102.9, 9.0
    assert resources.read().cpu_usage_ratio == pytest.approx(0.5 / cores), "another scraper soon after sees the same"
    now, cpu = 104.0, 8.0 + 200.0
    assert resources.read().cpu_usage_ratio == 1.0
    now = 106.0
    assert resources.read().cpu_usage_ratio == 0.0


def test_limits_are_read_anew(tmp_path: Path) -> None:
    limits(tmp_path, "0::/\n", {"cpu.max": "50000 100000"})
    now = 0.0
    resources = Resources(tmp_path, proc=tmp_path / "proc", cgroup=tmp_path / "cgroup", monotonic=lambda: now)
    assert resources.read().cpu_available_cores == 0.5
    (tmp_path / "cgroup" / "cpu.max").write_text("25000 100000")
    now = 9.0
    assert resources.read().cpu_available_cores == 0.5
    now = 10.0
    assert resources.read().cpu_available_cores == 0.25


def test_what_cannot_be_read_is_nan_and_still_exposed(tmp_path: Path) -> None:
    resources = Resources(tmp_path / "gone", proc=tmp_path / "proc", cgroup=tmp_path / "cgroup")
    figures = resources.read()
    for figure in ("disk_free_bytes", "disk_total_bytes", "resident_bytes", "open_fds", "process_start_seconds"):
        assert math.isnan(getattr(figures, figure)), figure
    fakes = Fakes(tmp_path / "gone")
    assert b"tokmesh_disk_free_bytes NaN\n" in Exposition(fakes.sources).render_now(TEXT.content_type)


def test_figures_of_this_process(tmp_path: Path) -> None:
    figures = Resources(tmp_path).read()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    resident = int(status["VmRSS"].split()[0]) * 1024
    assert figures.resident_bytes == pytest.approx(resident, rel=0.2)
    assert figures.virtual_bytes >= figures.resident_bytes
    assert 0 < figures.memory_limit_bytes <= RAM
    assert 0 < figures.disk_free_bytes <= figures.disk_total_bytes
    assert figures.max_fds >= figures.open_fds > 0
    assert abs(figures.cpu_seconds - time.process_time()) < 1
    assert 0 < time.time() - figures.process_start_seconds < 24 * 3600


def test_open_fds_counts_each(tmp_path: Path) -> None:
    resources = Resources(tmp_path)
    before = resources.read().open_fds
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(10)]
    after = resources.read().open_fds
    for file in files:
        os.close(file)
    assert after == before + 10


def test_affinity_bounds_the_cores(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from tokmesh.telemetry.cgroups import Cgroups\n"
        "from tokmesh.telemetry.limits import Limits\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "print(Limits(Path(sys.argv[1]), Cgroups(Path(sys.argv[1]), Path(sys.argv[1]))).cores())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.strip() == "1.0"
