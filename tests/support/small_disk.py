"""A disk that is really full: a tmpfs of a chosen size, filled by pages. Needs root, to mount it."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PAGE_BYTES: Final = 4096
FILL_PAGES_MAX: Final = 10_000


@contextlib.contextmanager
def small_disk(point: Path, size: str) -> Iterator[Path]:
    """An empty tmpfs at `point`, which is made; size: as mount takes it ("512k"). Gone, with all in it, at the end."""
    point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tokmesh-test", str(point)]
    done = subprocess.run(mount, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"this test mounts a tmpfs and must run as root: {done.stderr}"
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], timeout=60, check=True)


def fill(path: Path, free_pages: int = 0) -> None:
    """Lets the file at `path` take all room of its disk but `free_pages` pages."""
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        for _ in range(FILL_PAGES_MAX):
            file.write(bytes(PAGE_BYTES))
    with path.open("r+b") as file:
        file.truncate(max(0, path.stat().st_size - free_pages * PAGE_BYTES))
