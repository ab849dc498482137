"""`python -m benchmarks.cluster`: the rows of run.py, bootstrap.py and streams.py as a table and as JSON.

`--publish` writes them into docs/performance.md.
"""

import sys

from benchmarks.cluster.bootstrap import BootstrapRun
from benchmarks.cluster.run import ClusterRun
from benchmarks.cluster.streams import StreamsRun
from benchmarks.load import part
from benchmarks.load.process import Processes
from benchmarks.load.rows import Outcome
from benchmarks.load.subjects import Cores


def main(arguments: list[str]) -> int:
    """Exit code 0 when it ran to its end, whatever was met."""
    parser = part.parser_of("cluster", __doc__)
    parser.add_argument("--only", choices=("serving", "bootstrap", "streams"), help="one part of the rows")
    parser.add_argument("--scale", type=float, default=1.0, help="times a million sessions, of the bootstrap")
    chosen = parser.parse_args(arguments)

    def measure(processes: Processes, cores: Cores) -> list[Outcome]:
        outcomes: list[Outcome] = []
        if chosen.only in (None, "serving"):
            outcomes += ClusterRun(processes, cores, part.say).measure()
        if chosen.only in (None, "bootstrap"):
            outcomes += BootstrapRun(processes, cores, part.say, chosen.scale).measure()
        if chosen.only in (None, "streams"):
            outcomes += StreamsRun(processes, cores, part.say).measure()
        return outcomes

    return part.run("cluster", chosen, (), {"nodes": 3, "nats_servers": 3}, measure)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
