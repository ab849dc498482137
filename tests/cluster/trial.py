"""`make cluster`: three NATS servers and three nodes on loopback, to try by hand until Ctrl-C; nothing of them stays.

The lines it prints are to be copied to a shell; tests/cluster/test_trial.py runs them as they are.
"""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.support.cluster import Cluster

NODES: Final = 3
LOOK_S: Final = 0.5

LINES: Final = """\
export TOKMESH_KEY='{key}'
SESSION=$(curl -sS {urls[0]}/sessions -H "Authorization: Bearer $TOKMESH_KEY" -d '{{"user_id":"alice"}}'); echo "$SESSION"
TOKEN=$(echo "$SESSION" | grep -o 'tmtk_[A-Za-z0-9_-]*'); ID=$(echo "$SESSION" | grep -o 'tmss-[0-9a-z]*')
curl -sS {urls[1]}/tokens/validate -H "Authorization: Bearer $TOKMESH_KEY" -d "{{\\"token\\":\\"$TOKEN\\"}}"
curl -sS {urls[2]}/sessions/$ID/revoke -H "Authorization: Bearer $TOKMESH_KEY" -d '{{"sync":true}}'
curl -sS {urls[0]}/tokens/validate -H "Authorization: Bearer $TOKMESH_KEY" -d "{{\\"token\\":\\"$TOKEN\\"}}"
{tokmesh} cluster nodes --dir={directory}
"""


def main() -> int:
    """Runs until SIGINT or SIGTERM; exit code 0, or 1 when a node or a NATS server ended by itself."""
    parser = argparse.ArgumentParser(prog="make cluster", description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=5081, help="of the first node; the others follow. 0: any free ones")
    port = parser.parse_args().port
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="tokmesh-cluster-") as folder:
        cluster = Cluster(Path(folder), nodes=NODES, port=port)
        try:
            print(f"Starting three NATS servers and {NODES} nodes", flush=True)
            cluster.start()
            _tell(cluster)
            while True:  # until Ctrl-C
                time.sleep(LOOK_S)
                ended = [each for each in cluster.nodes if each.process is not None and each.process.poll() is not None]
                if ended:
                    print(f"a node ended by itself\n{ended[0].output}", file=sys.stderr)
                    return 1
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end takes a moment: a second Ctrl-C must not leave processes behind
            print("Stopping", flush=True)
            for node in reversed(cluster.nodes):
                node.stop()
            return 0
        finally:
            cluster.close()


def _tell(cluster: Cluster) -> None:
    urls = [node.url for node in cluster.nodes]
    print(f"Nodes: {', '.join(urls)}; NATS: {', '.join(cluster.nats.urls)}; data in {cluster.nodes[0].directory.parents[1]}")
    print("A session made on one node, known to the second, revoked on the third. In another terminal:\n")
    tokmesh = Path(sys.executable).with_name("tokmesh")
    print(LINES.format(key=cluster.key, urls=urls, tokmesh=tokmesh, directory=cluster.nodes[0].directory))
    print("Ctrl-C ends all of it and removes its data.", flush=True)


if __name__ == "__main__":
    sys.exit(main())
