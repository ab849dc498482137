"""wheel_contents.py WHEEL: it has every extension module, its stub and the typing marker, and nothing generated or test-only."""

import sys
import zipfile
from pathlib import Path, PurePath

ALLOWED_SUFFIXES = frozenset({".py", ".pyi", ".pxd", ".h", ".so", ".typed"})
CONSOLE_SUFFIXES = frozenset({".py", ".html", ".css", ".js", ".svg", ".txt"})


def faults(names: list[str], modules: set[str]) -> list[str]:
    """What is wrong with a wheel of these file names, given the stems of the sources' extension modules."""
    files = [PurePath(name) for name in names if ".dist-info/" not in name]
    found = [f"{file}: does not belong into a wheel" for file in files if not _belongs(file)]
    found += [f"{file}: outside the package" for file in files if file.parts[0] != "tokmesh"]
    core = [file.name for file in files if file.parent == PurePath("tokmesh/_core")]
    for module in sorted(modules):
        if not any(name.startswith(f"{module}.cpython-") and name.endswith(".so") for name in core):
            found.append(f"{module}: no extension module")
        if f"{module}.pyi" not in core:
            found.append(f"{module}: no stub")
    if PurePath("tokmesh/py.typed") not in files:
        found.append("no py.typed")
    missing = {"index.html", "uplot.min.js", "uplot.LICENSE.txt"} - {each.name for each in files if each.parts[1:2] == ("console",)}
    found += [f"console/{name}: missing" for name in sorted(missing)]
    if not any(name.endswith("/licenses/LICENSE") for name in names):
        found.append("no licence")
    return found


def _belongs(file: PurePath) -> bool:
    if file.parent == PurePath("tokmesh/console/runbooks"):
        return file.suffix == ".md"
    allowed = CONSOLE_SUFFIXES if file.parent == PurePath("tokmesh/console") else ALLOWED_SUFFIXES
    return file.suffix in allowed


def main() -> int:
    """Exit code 0 when the wheel is right; else prints what is wrong."""
    root = Path(__file__).resolve().parents[1]
    modules = {path.stem for path in (root / "tokmesh/_core").glob("*.pyx")}
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        found = faults(wheel.namelist(), modules)
    for fault in found:
        print(f"{sys.argv[1]}: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
