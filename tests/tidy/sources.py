"""What the house rules read: the repository's tracked (or about to be tracked) text files, and findings about them.

Invariant: a rule is a pure function of Source objects, so that a test can hand it a bad snippet and see it bite.
"""

import subprocess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
TEXT_SUFFIXES = frozenset(
    {".py", ".pyx", ".pxd", ".pyi", ".h", ".md", ".toml", ".txt", ".yml", ".yaml", ".json", ".in", ".conf", ".sh", ""}
)


class Source(NamedTuple):
    """One file: its path relative to the repository ("tokmesh/log/record.py") and its text."""

    path: str
    text: str

    @property
    def suffix(self) -> str:
        """".py" and so on; "" for Makefile, Dockerfile and scripts."""
        return Path(self.path).suffix

    @property
    def module(self) -> str:
        """Dotted name of the module this file defines ("tokmesh.log" for tokmesh/log/__init__.py)."""
        name = str(Path(self.path).with_suffix("")).replace("/", ".")
        return name.removesuffix(".__init__")

    @property
    def is_package(self) -> bool:
        """True for an __init__.py, against which relative imports resolve differently."""
        return Path(self.path).name == "__init__.py"

    @property
    def lines(self) -> list[str]:
        """Lines without their ends."""
        return self.text.splitlines()


class Finding(NamedTuple):
    """A broken rule: where (path, line from 1), and what to do about it."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def read_sources() -> tuple[Source, ...]:
    """Every text file that git tracks or would track, in order of path. Deleted ones are left out."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=30,
    )
    paths = sorted({name for name in listing.stdout.decode().split("\0") if name})
    files = [(name, ROOT / name) for name in paths if Path(name).suffix in TEXT_SUFFIXES]
    return tuple(Source(name, file.read_text(encoding="utf-8")) for name, file in files if file.is_file())
