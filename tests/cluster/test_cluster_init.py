"""`tokmesh cluster init`: real servers run on what it prints, its secrets are told once, and bad input is refused with a code."""

import asyncio
import re
import ssl
import sys
from pathlib import Path

import nats
import pytest
from nats.js.api import StreamConfig

from tests.support.namespaces import NETWORK
from tests.support.nats_hands import until_heard
from tests.support.nats_hosts import nats_hosts
from tests.support.server import run_command
from tokmesh.cli import main
from tokmesh.cluster.subjects import INBOX_PREFIX, Subjects
from tokmesh.errors import EX_CONFIG, EX_USAGE

SEED = re.compile(r"^(SU[A-Z2-7]{56})$", re.MULTILINE)
HOSTS = ",".join(f"{NETWORK}.{number}" for number in (1, 2, 3))


def printed(*options: str) -> tuple[str, list[str]]:
    """(configuration, seeds) of a run that must succeed."""
    done = run_command("cluster", "init", "--print-nats-conf", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout, SEED.findall(done.stderr)


def test_servers_run_on_what_is_printed_and_know_both_users(tmp_path: Path) -> None:
    config, (user, system) = printed("--name=prod-2", f"--hosts={HOSTS}")

    seed_file = tmp_path / "tokmesh.nkey"
    seed_file.write_text(f"{user}\n")  # as a shell writes it

    async def work(urls: list[str], ca_file: Path) -> None:
        tls = ssl.create_default_context(cafile=ca_file)
        client = await nats.connect(urls, tls=tls, nkeys_seed=str(seed_file), inbox_prefix=INBOX_PREFIX, allow_reconnect=False)
        stream = client.jetstream(timeout=10)
        subjects = Subjects("prod-2")
        await stream.add_stream(StreamConfig(name=subjects.stream, subjects=subjects.patterns, num_replicas=3))
        await until_heard(client, "tokmesh.prod-2.k.1")
        assert (await stream.publish("tokmesh.prod-2.k.1", b"x")).stream == "TOKMESH_prod-2_0"
        await client.close()
        operator = await nats.connect(urls, tls=tls, nkeys_seed_str=system, allow_reconnect=False)
        assert b'"server":' in (await operator.request("$SYS.REQ.SERVER.PING", b"", timeout=10)).data
        await operator.close()

    with nats_hosts(tmp_path, config) as hosts:
        hosts.call(lambda: asyncio.run(work(hosts.urls, hosts.authority.ca_file)))


def test_secrets_are_new_each_time_and_in_no_configuration() -> None:
    first, first_seeds = printed()
    second, second_seeds = printed()
    assert len({*first_seeds, *second_seeds}) == 4
    assert not any(seed in text for seed in (*first_seeds, *second_seeds) for text in (first, second))
    assert SEED.search(first) is None
    assert printed("--no-keys")[1] == []


def test_addresses_of_either_family_and_folders_reach_the_text() -> None:
    config, _ = printed("--hosts=2001:db8::1,192.0.2.2,nats.example.org", "--conf-dir=/opt/nats/", "--store-dir=/data/nats")
    for expected in ("nats-route://[2001:db8::1]:6222", "nats-route://192.0.2.2:6222", "nats-route://nats.example.org:6222"):
        assert f'"{expected}"' in config
    assert '"/opt/nats/tls/server.pem"' in config
    assert 'store_dir: "/data/nats"' in config
    assert "/etc/nats" not in config


@pytest.mark.parametrize(
    ("option", "rule"),
    [
        ("--name=", "--name: must be 1 to 32 of"),
        ("--name=" + 33 * "a", "--name: must be 1 to 32 of"),
        ("--name=a.>", "--name: must be 1 to 32 of"),
        ("--hosts=a", "--hosts: must be an odd number of servers from 3 to 9"),
        ("--hosts=a,b,c,d", "--hosts: must be an odd number of servers from 3 to 9"),
        ("--hosts=" + ",".join("abcdefghijk"), "--hosts: must be an odd number of servers from 3 to 9"),
        ("--hosts=a,b,b", "--hosts: must name each server once"),
        ("--hosts=a,,b", "--hosts: must be host names or addresses"),
        ("--hosts=a,b,-c", "--hosts: must be host names or addresses"),
        ("--hosts=a,b,c-", "--hosts: must be host names or addresses"),
        ("--hosts=a,b," + 64 * "c", "--hosts: must be host names or addresses"),
        ("--hosts=a,b,c:4222", "--hosts: must be host names or addresses"),
        ('--hosts=a,b,c"]', "--hosts: must be host names or addresses"),
        ("--conf-dir=nats", "--conf-dir: must be an absolute path"),
        ('--store-dir=/data"', "--store-dir: must be an absolute path"),
    ],
)
def test_bad_input_is_refused_with_its_rule(option: str, rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "init", "--print-nats-conf", option]) == EX_USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert f"TM-ARG-1001: Bad argument; {rule}" in err


@pytest.mark.parametrize(
    "option", ["--name=" + 32 * "a", "--hosts=" + ",".join("abcdefghi"), "--hosts=a,b," + 63 * "c"]
)
def test_the_largest_that_is_admitted(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "init", "--print-nats-conf", option]) == 0
    capsys.readouterr()


def test_without_the_option_it_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "init"]) == EX_USAGE
    assert "TM-ARG-1002: Missing argument; --print-nats-conf" in capsys.readouterr().err


def test_without_the_extra_it_says_how_to_get_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nkeys", None)
    assert main(["cluster", "init", "--print-nats-conf"]) == EX_CONFIG
    out, err = capsys.readouterr()
    assert out == ""
    assert "TM-CFG-1006" in err
    assert "pip install 'tokmesh[cluster]'" in err
    assert main(["cluster", "init", "--print-nats-conf", "--no-keys"]) == 0
