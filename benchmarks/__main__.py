"""`python -m benchmarks`: the micro benchmarks, then the side-by-side load. Arguments go to the load, see `--help`.

`--micro` runs the micro benchmarks alone, `--load` the load alone.
"""

import subprocess
import sys
from pathlib import Path

from benchmarks.load.__main__ import main as load_main

ROOT = Path(__file__).resolve().parents[1]
MICRO = ["-o", "python_files=bench_*.py", "benchmarks/micro"]


def micro_main() -> int:
    command = [sys.executable, "-m", "pytest", "-q", *MICRO, f"--basetemp={ROOT / 'benchmarks' / 'out' / 'micro'}"]
    command += ["--benchmark-columns=min,median,iqr,ops,rounds", "--benchmark-sort=name"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main(arguments: list[str]) -> int:
    rest = [argument for argument in arguments if argument not in ("--micro", "--load")]
    if "--load" not in arguments and not {"--help", "-h"} & set(arguments):
        code = micro_main()
        if code != 0 or "--micro" in arguments:
            return code
    return load_main(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
