"""`python -m benchmarks.storage`: the rows of run.py as a table and as JSON; `--publish` writes them into docs/performance.md."""

import sys

from benchmarks.load import part
from benchmarks.load.process import Processes
from benchmarks.load.rows import Outcome
from benchmarks.load.subjects import Cores
from benchmarks.storage.run import StorageRun


def main(arguments: list[str]) -> int:
    """Exit code 0 when it ran to its end, whatever was met."""
    parser = part.parser_of("storage", __doc__)
    parser.add_argument("--sessions", type=int, default=5_000_000)
    parser.add_argument("--expiring", type=int, default=1_000_000, help="sessions that end in the same second")
    chosen = parser.parse_args(arguments)

    def measure(processes: Processes, cores: Cores) -> list[Outcome]:
        return StorageRun(processes, cores, chosen.sessions, chosen.expiring, part.say).measure()

    settings = {"sessions": chosen.sessions, "expiring": chosen.expiring}
    return part.run("storage", chosen, ("redis-server", "redis-cli"), settings, measure)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
