"""Networks of namespaces: hosts that lose each other as a test says, and a NATS cluster that is partitioned over one."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nats
import pytest
from nats.errors import Error as NatsError
from nats.js.api import StreamConfig

from tests.support.namespaces import NETWORK, PREFIX, Host, Network
from tests.support.nats import NatsCluster, NatsServer
from tests.support.waiting import wait_until

PORT = 4000
REACH_TIMEOUT_S = 0.5
PUBLISH_TIMEOUT_S = 2.0
STREAM = "EVENTS"


def namespaces() -> str:
    """The namespaces of this test process that exist."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return "\n".join(line for line in listed.splitlines() if line.startswith(f"{PREFIX}{os.getpid()}-"))


@contextlib.contextmanager
def ears(network: Network) -> Iterator[Callable[[Host, Host], bool]]:
    """Does a datagram from the first host reach the second?"""
    with contextlib.ExitStack() as stack:
        sockets: dict[Host, socket.socket] = {}
        for host in network.hosts:
            sockets[host] = stack.enter_context(host.call(lambda: socket.socket(type=socket.SOCK_DGRAM)))
            sockets[host].bind((host.address, PORT))
            sockets[host].settimeout(REACH_TIMEOUT_S)

        def reaches(speaker: Host, listener: Host) -> bool:
            sockets[speaker].sendto(speaker.address.encode(), (listener.address, PORT))
            try:
                return sockets[listener].recv(100) == speaker.address.encode()
            except TimeoutError:
                return False

        yield reaches


def test_hosts_reach_each_other_until_a_pair_is_cut_and_the_third_still_reaches_both() -> None:
    with Network(3) as network, ears(network) as reaches:
        a, b, c = network.hosts
        pairs = [(one, other) for one in network.hosts for other in network.hosts if one is not other]
        wait_until(lambda: all(reaches(one, other) for one, other in pairs), "every host reaches every other")
        network.cut([a], [b])
        assert [(one, other) for one, other in pairs if not reaches(one, other)] == [(a, b), (b, a)]
        network.heal()
        assert all(reaches(one, other) for one, other in pairs)
        network.isolate([c])
        assert [(one, other) for one, other in pairs if reaches(one, other)] == [(a, b), (b, a)]
        network.heal()
        network.deafen(a, c)
        assert [(one, other) for one, other in pairs if not reaches(one, other)] == [(c, a)]


def test_a_cut_falls_silent_on_open_connections_and_a_heal_brings_them_back() -> None:
    with Network(2) as network:
        a, b = network.hosts
        with b.call(lambda: socket.create_server((b.address, PORT))) as server:
            near = a.call(lambda: socket.create_connection((b.address, PORT)))
            far, _ = server.accept()
            with near, far:
                far.settimeout(REACH_TIMEOUT_S)
                network.deafen(b, a)
                near.sendall(b"hello")
                with pytest.raises(TimeoutError):
                    far.recv(5)
                far.sendall(b"still heard")
                assert near.recv(11) == b"still heard"
                network.heal()
                far.settimeout(60.0)  # TCP sends again by itself, with growing pauses
                assert far.recv(5) == b"hello"


def test_addresses_exist_only_inside_and_nothing_is_left() -> None:
    with Network(2) as network:
        outside = subprocess.run(["ip", "address"], capture_output=True, text=True, check=True).stdout
        assert f"{NETWORK}." not in outside
        inside = subprocess.run(network.hosts[1].command(["ip", "address"]), capture_output=True, text=True, check=True).stdout
        assert f"inet {NETWORK}.2/24" in inside
        with Network(2) as twin, ears(network) as reaches, ears(twin) as twin_reaches:
            network.cut(network.hosts[:1], network.hosts[1:])
            assert not reaches(network.hosts[1], network.hosts[0])
            assert twin_reaches(twin.hosts[1], twin.hosts[0])  # the same addresses, and another network
        sleeper = subprocess.Popen(network.hosts[0].command([sys.executable, "-c", "import time; time.sleep(600)"]))
        wait_until(lambda: Path(f"/proc/{sleeper.pid}/ns/net").exists(), "the process")
        wait_until(lambda: os.readlink(f"/proc/{sleeper.pid}/ns/net") != os.readlink("/proc/self/ns/net"), "its namespace")
        assert namespaces() != ""
    assert sleeper.wait(30) == -9
    assert namespaces() == ""


def test_a_network_left_behind_by_a_killed_run_goes_with_the_next() -> None:
    code = (
        "import os, signal\nfrom tests.support.namespaces import Network\n"
        "Network(1).__enter__(); print(os.getpid(), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    left = f"{PREFIX}{killed.stdout.strip()}-"
    assert left in subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    with Network(1):
        assert left not in subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout


def test_what_runs_on_a_host_raises_and_leaves_this_thread_where_it_is() -> None:
    here = os.readlink("/proc/thread-self/ns/net")
    with Network(1) as network:
        assert network.hosts[0].call(lambda: os.readlink("/proc/thread-self/ns/net")) != here
        with pytest.raises(ZeroDivisionError):
            network.hosts[0].call(lambda: 1 // 0)
        assert os.readlink("/proc/thread-self/ns/net") == here


def publish(server: NatsServer, subject: str) -> bool:
    """Publishes through a client on the server's own host; was it acknowledged?"""

    async def attempt() -> bool:
        client = await nats.connect(server.url, connect_timeout=5)
        try:
            await client.jetstream(timeout=PUBLISH_TIMEOUT_S).publish(subject, b"x", headers={"Nats-Msg-Id": subject})
        except (NatsError, TimeoutError):
            return False
        finally:
            await client.close()
        return True

    return server.place.call(lambda: asyncio.run(attempt()))


def make_stream(server: NatsServer) -> None:
    """The stream of this test, of three replicas."""

    async def make() -> None:
        client = await nats.connect(server.url)
        await client.jetstream(timeout=10).add_stream(StreamConfig(name=STREAM, subjects=["events.>"], num_replicas=3))
        await client.close()

    server.place.call(lambda: asyncio.run(make()))


def state_of(server: NatsServer) -> tuple[int, int]:
    """(messages, last sequence) of the stream, as this server holds it."""
    for account in server.monitor("/jsz?accounts=true&streams=true").get("account_details", ()):
        for stream in account["stream_detail"]:
            if stream["name"] == STREAM:
                return stream["state"]["messages"], stream["state"]["last_seq"]
    return (0, 0)


def test_the_majority_of_a_partitioned_cluster_takes_writes_the_minority_none_and_healed_they_agree(tmp_path: Path) -> None:
    with Network(3) as network, NatsCluster(tmp_path, places=network.hosts) as cluster:
        make_stream(cluster.servers[0])
        leader = cluster.wait_stream_leader(STREAM)
        assert publish(cluster.servers[leader], "events.before")
        # The leader itself is cut off, and goes on believing that it leads.
        network.isolate([network.hosts[leader]])
        assert not publish(cluster.servers[leader], "events.minority")
        other = cluster.wait_stream_leader(STREAM, other_than=leader)
        wait_until(lambda: publish(cluster.servers[other], "events.majority"), "the majority takes writes")
        assert not publish(cluster.servers[leader], "events.minority")
        network.heal()
        cluster.wait_ready()
        wait_until(lambda: publish(cluster.servers[leader], "events.after"), "the former leader's side takes writes again")
        wait_until(lambda: len({state_of(server) for server in cluster.servers}) == 1, "all agree")
        messages, last_sequence = state_of(cluster.servers[leader])
        assert messages == last_sequence == 3
