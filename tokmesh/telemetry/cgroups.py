"""Where the kernel keeps what it allows this process and what it saw of it: its cgroups, of version 2 and 1.

Invariant: a path is only ever one under the mount that was given, so that a test can give a tree of its own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

CGROUP_DEPTH_MAX: Final = 32


class Cgroups:
    """proc, cgroup: where those file systems are mounted."""

    def __init__(self, proc: Path, cgroup: Path) -> None:
        self._proc = proc
        self._cgroup = cgroup

    def directories(self, controller: str) -> Iterator[Path]:
        """The process's cgroup and those above it: of the unified hierarchy for "", else of a v1 controller.

        Some may not exist: a container sees its own cgroup as the root, under a name that only the host knows.
        """
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
