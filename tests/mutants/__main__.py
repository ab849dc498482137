"""Plants each defect of the catalogue in a copy of the tree and runs the tests that must see it.

    python -m tests.mutants [--jobs N] [--only WORD] [--list]

The tests are first run without any defect: one that fails then would catch everything. Nothing is written to the tree this runs in;
a defect in an extension module builds that module in the copy. Exit code 1 when a defect is not seen.
"""

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import Edit, Mutant

ROOT: Final = Path(__file__).resolve().parents[2]
LEFT_OUT: Final = (".git", ".venv*", "__pycache__", "dist", "asan", "data", "tokmesh-data", ".*_cache", ".hypothesis", "*.egg-info")
TIMEOUT_S: Final = 900
TESTS_FAILED: Final = 1  # pytest's exit code


class Copy:
    """A tree that may be spoiled."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._originals: dict[str, str] = {}  # of what is changed
        shutil.copytree(ROOT, path, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TOKMESH_", "PYTEST_"))}
        self._environment = {**kept, "PYTHONPATH": str(path)}
        found = self._run(sys.executable, "-c", "import tokmesh; print(tokmesh.__file__)").stdout.strip()
        assert Path(found).is_relative_to(path), f"the copy's package is not the one that is imported: {found}"

    def build(self) -> None:
        """Makes what changed. AssertionError when it does not compile."""
        done = self._run(sys.executable, "setup.py", "-q", "build_ext", "--inplace")
        assert done.returncode == 0, done.stderr[-3000:]

    def test(self, *tests: str, options: tuple[str, ...] = ("-x",)) -> subprocess.CompletedProcess[str]:
        """pytest's result."""
        return self._run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *tests)

    def change(self, edit: Edit, *, back: bool = False) -> None:
        """Makes the edit, or takes it back."""
        path = self.path / edit.path
        text, old, new = path.read_text(), edit.old, edit.new
        if back:
            path.write_text(self._originals.pop(edit.path, text))
        else:
            assert text.count(old) == 1, f"{edit.path}: the text to replace stands there {text.count(old)} times"
            self._originals.setdefault(edit.path, text)
            path.write_text(text.replace(old, new))
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=self.path, env=self._environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )


def try_one(mutant: Mutant, copies: "queue.Queue[Copy]") -> bool:
    """Whether a test saw it; says so."""
    copy, started_s = copies.get(), time.monotonic()
    try:
        for edit in mutant.edits:
            copy.change(edit)
        if mutant.needs_build:
            copy.build()
        try:
            done = copy.test(*mutant.tests)
        except subprocess.TimeoutExpired:
            caught, by = True, "a time-out"
        else:
            caught = done.returncode == TESTS_FAILED
            failed = [line.split(" ")[1] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
            by = failed[0].rpartition("::")[2] if failed else f"nothing (pytest ended with {done.returncode})"
    finally:
        for edit in mutant.edits:
            copy.change(edit, back=True)
        if mutant.needs_build:
            copy.build()
        copies.put(copy)
    print(f"{'caught  ' if caught else 'SURVIVED'} {time.monotonic() - started_s:4.0f} s  {mutant.name}: {by}", flush=True)
    return caught


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="copies of the tree at work")
    parser.add_argument("--only", default="", help="defects with this in their name")
    parser.add_argument("--list", action="store_true", help="name the defects and do nothing")
    arguments = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if arguments.only in mutant.name]
    if arguments.list:
        print("\n".join(mutant.name for mutant in chosen))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        copies: queue.Queue[Copy] = queue.Queue()
        for number in range(arguments.jobs):
            copies.put(Copy(Path(folder) / f"tree-{number}"))
        copy = copies.get()
        copy.build()
        tests = sorted({test for mutant in chosen for test in mutant.tests})
        done = copy.test(*tests, options=("-n", str(arguments.jobs), "--dist=loadfile"))
        copies.put(copy)
        if done.returncode != 0:
            print(f"the tests fail without a defect:\n{done.stdout[-5000:]}", file=sys.stderr)
            return 1
        print("the tests pass without a defect", flush=True)
        with ThreadPoolExecutor(arguments.jobs) as pool:
            caught = sum(pool.map(lambda mutant: try_one(mutant, copies), chosen))
    print(f"{caught} of {len(chosen)} caught")
    return int(caught != len(chosen))


if __name__ == "__main__":
    sys.exit(main())
