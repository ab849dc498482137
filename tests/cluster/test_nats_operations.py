"""What deploy/nats/README.md promises to operators: certificates, another key, upgrades, a lost disk; on real servers."""

import asyncio
import re
import shutil
import signal
import subprocess
from pathlib import Path

from nats.errors import Error as NatsError
from nats.errors import NoServersError

from tests.cluster.deployed import API_TIMEOUT_S, CONFIG, STREAM, USER, Session, as_tokmesh, deployed, ensure_stream, open_client
from tests.support.nats_hosts import CONFIG as CONFIG_PATH
from tests.support.nats_hosts import NAMES, NatsHosts
from tests.support.waiting import wait_until
from tokmesh.cluster.nats_conf import make_nkey

README = CONFIG.with_name("README.md")
RECORDS = 50


def write_records(hosts: NatsHosts) -> None:
    """Fifty records in the stream, the same each time."""

    async def work(session: Session) -> None:
        await ensure_stream(session)
        stream = session.client.jetstream(timeout=API_TIMEOUT_S)
        for number in range(RECORDS):
            await stream.publish(f"tokmesh.tokmesh.s.00.{number}", b"x")

    as_tokmesh(hosts, work)


def messages_held(hosts: NatsHosts, number: int) -> int:
    """How many messages one server holds, by its own word."""
    held: int = hosts.servers[number].monitor("/jsz")["messages"]
    return held


def test_certificates_made_as_the_readme_says_are_accepted_between_servers(tmp_path: Path) -> None:
    commands = next(block for block in re.findall(r"```\n(.*?)```", README.read_text(), re.DOTALL) if "openssl req -x509" in block)
    made, folder = tmp_path / "made", tmp_path / "hosts"
    made.mkdir()
    folder.mkdir()
    subprocess.run(["bash", "-euc", commands], cwd=made, check=True, capture_output=True, timeout=120)
    with deployed(folder, made) as hosts:  # which waits until the servers have found each other
        assert {server.monitor("/jsz")["meta_cluster"]["cluster_size"] for server in hosts.servers} == {3}


def test_a_key_is_replaced_by_reloads_while_the_old_one_still_works(tmp_path: Path) -> None:
    new = make_nkey()
    with deployed(tmp_path) as hosts:
        write_records(hosts)
        before = CONFIG.read_text()
        users = re.search(r"(?<=users: \[)\{\n.*?\n    \}(?=\])", before, re.DOTALL)
        assert users is not None
        both = before.replace(users[0], f"{users[0]}, {users[0].replace('$TOKMESH_NKEY', new.public)}")
        only_new = before.replace("$TOKMESH_NKEY", new.public)
        reload(hosts, both, "Reloaded: authorization nkey users")
        assert opens(hosts, USER.seed)
        assert opens(hosts, new.seed)
        reload(hosts, only_new, "Reloaded: authorization nkey users")
        assert not opens(hosts, USER.seed)
        assert opens(hosts, new.seed)
        assert [messages_held(hosts, number) for number in range(3)] == [RECORDS] * 3


def reload(hosts: NatsHosts, config: str, line: str) -> None:
    """Gives every server another configuration, and waits until each has logged `line` once more."""
    wanted = [server.output.count(line) + 1 for server in hosts.servers]
    for name, server in zip(NAMES, hosts.servers, strict=True):
        (hosts.folder / name / "etc" / "nats" / CONFIG_PATH.name).write_text(config)
        server.send_signal(signal.SIGHUP)
    wait_until(lambda: [server.output.count(line) for server in hosts.servers] == wanted, "the reload of all")


def opens(hosts: NatsHosts, seed: str) -> bool:
    """Does a seed open the stream?"""

    async def attempt() -> bool:
        try:
            client = await open_client(hosts, seed, [])
        except (NoServersError, NatsError):
            return False
        info = await client.jetstream(timeout=API_TIMEOUT_S).stream_info(STREAM)
        await client.close()
        return info.state.messages == RECORDS

    return hosts.call(lambda: asyncio.run(attempt()))


def test_servers_hand_over_and_end_one_by_one_and_nothing_is_lost(tmp_path: Path) -> None:
    with deployed(tmp_path) as hosts:
        write_records(hosts)
        for server in hosts.servers:
            server.send_signal(signal.SIGUSR2)
            server.wait_end()
            server.spawn()
            server.wait_ready()
        write_records(hosts)
        wait_until(lambda: [messages_held(hosts, number) for number in range(3)] == [RECORDS] * 3, "all records on all servers")


def test_a_server_with_an_empty_disk_is_filled_by_the_others(tmp_path: Path) -> None:
    with deployed(tmp_path) as hosts:
        write_records(hosts)
        number = 0
        hosts.servers[number].kill()
        store = tmp_path / NAMES[number] / "store"
        shutil.rmtree(store / "jetstream")
        assert not any(store.iterdir())
        hosts.servers[number].spawn()
        hosts.servers[number].wait_ready()
        wait_until(lambda: messages_held(hosts, number) == RECORDS, "its records again")
