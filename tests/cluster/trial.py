"""`make cluster`: three NATS servers and three nodes on loopback, to try by hand until Ctrl-C; nothing of them stays.

The lines it prints are to be copied to a shell; tests/cluster/test_trial.py runs them as they are. Any of the processes may be
killed: that and how to start it again is told, and one that was started again belongs to the trial like the first.
"""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.cluster.watched import Watched
from tests.support.cluster import Cluster
from tests.support.nats import NatsServer
from tests.support.server import TokMeshProcess

NODES: Final = 3
LOOK_S: Final = 0.5

LINES: Final = """\
export TOKMESH_KEY='{key}'
SESSION=$(curl -sS {urls[0]}/sessions -H "Authorization: Bearer $TOKMESH_KEY" -d '{{"user_id":"alice"}}'); echo "$SESSION"
TOKEN=$(echo "$SESSION" | grep -o 'tmtk_[A-Za-z0-9_-]*'); ID=$(echo "$SESSION" | grep -o 'tmss-[0-9a-z]*')
curl -sS {urls[1]}/tokens/validate -H "Authorization: Bearer $TOKMESH_KEY" -d "{{\\"token\\":\\"$TOKEN\\"}}"
curl -sS {urls[2]}/sessions/$ID/revoke -H "Authorization: Bearer $TOKMESH_KEY" -d '{{"sync":true}}'
curl -sS {urls[0]}/tokens/validate -H "Authorization: Bearer $TOKMESH_KEY" -d "{{\\"token\\":\\"$TOKEN\\"}}"
{tokmesh} cluster nodes --dir={directories[0]}

What each node knows of the cluster; exit code 1 when that is DEGRADED:

{status}

Kill a node and see: the others go on, and list it as down after 2 s. How to start it again is told here then.

kill -9 {pid}
curl -sS {urls[0]}/sessions -H "Authorization: Bearer $TOKMESH_KEY" -d '{{"user_id":"bob"}}'
{tokmesh} cluster nodes --dir={directories[0]}
"""


def main() -> int:
    """Runs until SIGINT or SIGTERM; exit code 0, or 1 when the start failed or no node is left."""
    parser = argparse.ArgumentParser(prog="make cluster", description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=5081, help="of the first node; the others follow. 0: any free ones")
    port = parser.parse_args().port
    for number in (signal.SIGINT, signal.SIGTERM):  # whoever started this may have been told to ignore the first
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="tokmesh-cluster-") as folder:
        cluster = Cluster(Path(folder), nodes=NODES, port=port)
        nodes: list[Watched] = []
        servers: list[Watched] = []
        try:
            print(f"Starting three NATS servers and {NODES} nodes", flush=True)
            cluster.begin()
            nodes += [_node(number, each) for number, each in enumerate(cluster.nodes)]
            servers += [_server(each) for each in cluster.nats.servers]
            _tell(cluster, nodes, servers)
            while any(each.pids() for each in nodes):  # until Ctrl-C
                time.sleep(LOOK_S)
                for news in filter(None, [each.news() for each in nodes + servers]):
                    print(f"\n{news}", flush=True)
            _end_in_peace()
            print("No node is left", file=sys.stderr, flush=True)
            return 1
        except KeyboardInterrupt:
            _end_in_peace()
            print("Stopping", flush=True)
            for each in reversed(nodes):
                each.stop()
            return 0
        finally:
            _end_in_peace()
            for each in nodes + servers:
                each.kill()  # also those that were started by hand
            cluster.close()


def _end_in_peace() -> None:
    """The end takes a moment: a Ctrl-C meanwhile must not leave processes behind."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _node(number: int, node: TokMeshProcess) -> Watched:
    assert node.process is not None
    node.keep_port()
    return Watched(f"tmnd-{number}", node.process, node.command(), f"--storage.dir={node.directory}", node.stdout_file)


def _server(server: NatsServer) -> Watched:
    assert server.process is not None
    return Watched(server.name, server.process, server.command(), str(server.config), server.output_file)


def _tell(cluster: Cluster, nodes: list[Watched], servers: list[Watched]) -> None:
    for node, watched in zip(cluster.nodes, nodes, strict=True):
        print(f"{watched.name}: {node.url}, pid {node.pid}, log {watched.log}, data {node.directory}")
    for server, watched in zip(cluster.nats.servers, servers, strict=True):
        print(f"{watched.name}: {server.url}, pid {server.pid}, log {watched.log}")
    print("\nA session made on one node, known to the second, revoked on the third. In another terminal:\n")
    tokmesh = Path(sys.executable).with_name("tokmesh")
    directories = [node.directory for node in cluster.nodes]
    print(
        LINES.format(
            key=cluster.key, urls=[node.url for node in cluster.nodes], tokmesh=tokmesh, directories=directories,
            status="\n".join(f"{tokmesh} cluster status --dir={each}" for each in directories), pid=cluster.nodes[-1].pid,
        )
    )  # fmt: skip
    print("Ctrl-C ends all of it and removes its data.", flush=True)


if __name__ == "__main__":
    sys.exit(main())
