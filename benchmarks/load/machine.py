"""What the figures were measured on."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path


def describe(directory: Path) -> dict[str, str]:
    """Processor, kernel, file system of `directory`, and versions of all that took part."""
    return {
        "processor": first_value(Path("/proc/cpuinfo"), "model name"),
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "file system": file_system(directory),
        "python": sys.version.split()[0],
        "uvloop": version("uvloop"),
        "starlette": version("starlette"),
        "uvicorn": version("uvicorn"),
        "redis": program_version(["redis-server", "--version"]).split("v=")[1].split()[0],
        "nginx": program_version(["nginx", "-v"]).rpartition("/")[2],
        "wrk": program_version(["wrk", "-v"]).split(" [")[0],
    }


def first_value(path: Path, name: str) -> str:
    values = (line.partition(":")[2].strip() for line in path.read_text().splitlines() if line.startswith(name))
    return next(values, "unknown")


def file_system(directory: Path) -> str:
    """Type of the file system that holds `directory`: the mount with the longest matching path."""
    best = ("", "unknown")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, kind = line.split()[:3]
        if directory.resolve().is_relative_to(mount) and len(mount) > len(best[0]):
            best = (mount, kind)
    return best[1]


def program_version(command: list[str]) -> str:
    environment = dict(os.environ, PATH=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    finished = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False, env=environment)
    return (finished.stdout + finished.stderr).splitlines()[0]
