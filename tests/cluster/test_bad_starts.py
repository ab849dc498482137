"""Starts that cannot succeed yet wait and say why; starts that must not succeed end at once with a code."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.nats import HeldPorts, NatsCluster, NatsServer
from tests.support.server import TokMeshProcess
from tests.support.waiting import wait_until
from tokmesh.cluster.nats_conf import make_nkey

OLD_PROGRAM = "/usr/sbin/nats-server"  # Debian's
EX_CONFIG, EX_OK = 78, 0


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsCluster]:
    """One server."""
    folder = tmp_path / "nats"
    folder.mkdir()
    with NatsCluster(folder, 1) as started:
        yield started


def node_of(tmp_path: Path, url: str, *args: str) -> TokMeshProcess:
    """A node of a cluster on that NATS, not started."""
    folder = tmp_path / f"node-{len(list(tmp_path.glob('node-*')))}"
    folder.mkdir()
    return TokMeshProcess(folder, "--cluster.enabled=true", f"--cluster.nats.servers={url}", "--cluster.nats.replicas=1", *args)


def said(node: TokMeshProcess, words: str) -> bool:
    """Whether a line of the node's log has these words."""
    return any(words in line["message"] for line in node.log_lines())


def ready_status(node: TokMeshProcess) -> int:
    """What /ready answers; 0: nothing yet."""
    try:
        return node.request("GET", "/ready", key=None)[0] if node._find_ports() else 0
    except OSError:
        return 0


def refusal(cluster: Cluster, path: str, body: dict[str, str]) -> tuple[int, str, object]:
    """Status, code and details of what the first node refuses."""
    status, answer = cluster.ask(0, "POST", path, body)
    return status, answer.get("code", ""), answer.get("details")


def test_without_nats_a_node_waits_says_why_and_comes_up_with_it(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=1, servers=1) as cluster:
        token, node, server = cluster.create(0)["token"], cluster.nodes[0], cluster.nats.servers[0]
        node.stop()
        server.stop()
        node.spawn()
        wait_until(lambda: said(node, "cannot connect"), "it says what it waits for")
        assert ready_status(node) == 503
        told = node.command_line("cluster", "status")
        assert told.returncode == 1 and "STARTING" in told.stdout and "connecting to NATS; NATS: cannot connect" in told.stdout
        told = node.command_line("doctor")
        assert told.returncode == 1 and "NATS: cannot connect" in told.stdout, told
        told = node.command_line("cluster", "status", "--json")
        assert "cannot connect" in json.loads(told.stdout)["waits_for"]["cluster"]
        assert node.request("GET", "/health", key=None)[0] == 200
        assert cluster.verdict(0, token)[0] == 503
        server.spawn()
        node.wait_ready()
        assert cluster.verdict(0, token) is True


def test_a_node_that_waits_for_nats_ends_when_it_is_asked_to(tmp_path: Path, nats: NatsCluster) -> None:
    nats.kill(0)
    node = node_of(tmp_path, nats.urls[0]).spawn()
    wait_until(lambda: said(node, "cannot connect"), "it waits")
    assert node.stop() == EX_OK


def test_wrong_credentials_are_told_and_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "nats"
    folder.mkdir()
    with NatsCluster(folder, 1, extra='authorization { user: "a", password: "secret-of-nats" }\n') as nats:
        # Which a client of a user would have; the server's own monitoring asks for none.
        address = nats.urls[0].removeprefix("nats://")
        node = node_of(tmp_path, f"nats://a:wrong-secret@{address}").spawn()
        wait_until(lambda: said(node, "uthorization"), "it says so")
        assert ready_status(node) == 503
        for command in (("cluster", "status"), ("doctor",)):
            told = node.command_line(*command)
            assert told.returncode == 1 and "uthorization" in told.stdout and "wrong-secret" not in told.stdout, told
        assert node.stop() == EX_OK
        assert "wrong-secret" not in node.output
        right = node_of(tmp_path, f"nats://a:secret-of-nats@{address}")
        with right:
            assert "secret-of-nats" not in right.output


def test_credentials_replaced_by_rubbish_are_told_and_read_again(tmp_path: Path) -> None:
    folder, nkey = tmp_path / "nats", make_nkey()
    folder.mkdir()
    file = tmp_path / "credentials"
    file.write_text(nkey.seed)
    file.chmod(0o600)
    rubbish = "SU-no-seed-but-secret"
    with NatsCluster(folder, 1, extra=f"authorization {{ users: [{{ nkey: {nkey.public} }}] }}\n") as nats:
        nats.kill(0)
        node = node_of(tmp_path, nats.urls[0], f"--cluster.nats.credentials_file={file}").spawn()
        with node:
            wait_until(lambda: said(node, "cannot connect"), "it waits")
            file.write_text(rubbish)
            wait_until(lambda: said(node, "its seed is not that of a user"), "told before there was a connection")
            nats.start(0)
            file.write_text(nkey.seed)
            node.wait_ready()
            nats.kill(0)
            file.write_text("rubbish")
            nats.start(0)
            wait_until(lambda: said(node, "neither a .creds file"), "told after a connection was lost")
            file.write_text(nkey.seed)
            wait_until(lambda: ready_status(node) == 200, "connected again")
            assert node.stop() == EX_OK
        assert rubbish not in node.output and nkey.seed not in node.output and "Traceback" not in node.output


def test_of_two_processes_with_one_id_the_second_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=2, servers=1) as cluster:
        token = cluster.create(0)["token"]
        twin = node_of(tmp_path, cluster.nats.urls[0], "--cluster.node_id=tmnd-0").spawn()
        assert twin.wait() == EX_CONFIG, twin.output
        assert "TM-CLST-4090" in twin.stderr
        for node in range(2):
            cluster.wait_verdict(node, token, True)
        assert cluster.ask(0, "POST", "/sessions", {"user_id": "u"})[0] == 200
        assert ready_status(cluster.nodes[0]) == 200


def test_a_directory_of_a_node_alone_is_no_node_of_a_cluster(tmp_path: Path, nats: NatsCluster) -> None:
    alone = TokMeshProcess(tmp_path)
    with alone:
        alone.create_session()
        alone.stop()
    alone.args = ["--cluster.enabled=true", f"--cluster.nats.servers={nats.urls[0]}", "--cluster.nats.replicas=1"]
    assert alone.spawn().wait() == EX_CONFIG, alone.output
    assert "TM-CFG-1005" in alone.stderr and "alone" in alone.stderr
    alone.args = []
    with alone.start():  # nothing has happened to it
        assert alone.data("GET", "/sessions?user_id=user")["total_items"] == 1


def test_a_directory_of_a_node_of_a_cluster_does_not_go_on_alone(tmp_path: Path, nats: NatsCluster) -> None:
    node = node_of(tmp_path, nats.urls[0])
    with node:
        token = node.create_session()["token"]
        node.stop()
    args, node.args = node.args, []
    assert node.spawn().wait() == EX_CONFIG, node.output
    assert "TM-CFG-1005" in node.stderr
    node.args = args
    with node.start():
        assert node.validate(token)["valid"]


def test_a_nats_server_that_is_too_old_is_refused(tmp_path: Path) -> None:
    told = subprocess.run([OLD_PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
    assert "v2.9." in told
    held = HeldPorts()
    config = tmp_path / "nats.conf"
    config.write_text(
        f'listen: "127.0.0.1:{held.ports.client}"\nhttp: "127.0.0.1:{held.ports.monitor}"\n'
        f'jetstream {{ store_dir: "{tmp_path / "store"}" }}\n'
    )
    with NatsServer("old", tmp_path, config, held.ports, program=OLD_PROGRAM) as server:
        node = node_of(tmp_path, server.url).spawn()
        assert node.wait() == EX_CONFIG, node.output
        assert "too old" in node.stderr and "2.9." in node.stderr
        assert "Traceback" not in node.output
    held.release()


def test_a_node_that_stands_apart_says_so_in_its_refusals(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=1, servers=1) as cluster:
        token, node = cluster.create(0)["token"], cluster.nodes[0]
        assert node.stop() == 0
        (node.directory / "stands_apart").write_text("its table was wrong\n")
        node.spawn()
        wait_until(node._find_ports, "it listens")
        right = (503, "TM-CLST-5030", {"reason": "stands_apart"})
        for path, body in (("/tokens/validate", {"token": token}), ("/sessions", {"user_id": "u"})):
            wait_until(lambda: refusal(cluster, path, body) == right, f"{path} is refused for that", 10)  # noqa: B023
