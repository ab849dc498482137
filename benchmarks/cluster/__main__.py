"""`python -m benchmarks.cluster`: the rows of run.py as a table and as JSON; `--publish` writes them into docs/performance.md."""

import sys

from benchmarks.cluster.run import ClusterRun
from benchmarks.load import part


def main(arguments: list[str]) -> int:
    """Exit code 0 when it ran to its end, whatever was met."""
    chosen = part.parser_of("cluster", __doc__).parse_args(arguments)
    settings = {"nodes": 3, "nats_servers": 3}
    return part.run(
        "cluster", chosen, (), settings, lambda processes, cores: ClusterRun(processes, cores, part.say).measure()
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
