"""`cluster.nats`: what cannot work is refused before anything starts, and no refusal has a secret in it."""

import os
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.config import load_errors, load_settings
from tests.support.server import run_command
from tokmesh.cli.nats_files import check_files
from tokmesh.cluster.credentials import FILE_BYTES_MAX
from tokmesh.config import ConfigError, load, shown_lines
from tokmesh.config.keys import NatsSettings, NatsTlsSettings

SERVERS = "cluster.nats.servers"
SEED = "SUAFRIRTQDN6WLCAPVLA5Z6OYKT5UTQHIILGV5S5QM5E4OLBXZPQKM7LD4"  # of nobody; fixed, as cases are named by what they hold
CREDS = (
    "-----BEGIN NATS USER JWT-----\neyJ0.eyJq.c2ln\n------END NATS USER JWT------\n\n*** keep it secret ***\n\n"
    f"-----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------\n"
)


def told(value: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load([(SERVERS, value)], environment={})
    return str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        "nats://a",
        "nats://a:1",
        "nats://a:65535",
        "nats://127.0.0.1:4222",
        "nats://[::1]",
        "nats://[::1]:4222",
        "tls://nats-1.example:4222,tls://nats-2.example:4222",
        "nats://user:pw@a:1",
        "nats://user:p%40w@[::1]:1, nats://token@b",
    ],
)
def test_urls_of_nats_are_taken(value: str) -> None:
    assert load_settings({SERVERS: value}).cluster.nats.servers == tuple(each.strip() for each in value.split(","))


@pytest.mark.parametrize(
    ("value", "code", "named"),
    [
        ("junk", "TM-CFG-1001", "junk"),
        ("a:4222", "TM-CFG-1001", "a:4222"),
        ("nats://", "TM-CFG-1001", "nats://"),
        ("nats://:4222", "TM-CFG-1001", "nats://:4222"),
        ("http://x:1", "TM-CFG-1001", "http://x:1"),
        ("ws://a:1", "TM-CFG-1001", "ws://a:1"),
        ("NATS://a:1", "TM-CFG-1001", "NATS://a:1"),
        ("nats://a:0", "TM-CFG-1002", "nats://a:0"),
        ("nats://a:65536", "TM-CFG-1002", "nats://a:65536"),
        ("nats://a:99999", "TM-CFG-1002", "nats://a:99999"),
        ("nats://a:", "TM-CFG-1001", "nats://a:"),
        ("nats://[::1", "TM-CFG-1001", "nats://[::1"),
        ("nats://::1", "TM-CFG-1001", "nats://:[redacted]"),
        ("nats://1.2.3.400:1", "TM-CFG-1001", "nats://1.2.3.400:1"),
        ("nats://a b:1", "TM-CFG-1001", "nats://a b:1"),
        ("nats://a:4222/path", "TM-CFG-1001", "nats://a:4222/path"),
        ("nats://a?x=1", "TM-CFG-1001", "nats://a?x=1"),
        ("nats://@a", "TM-CFG-1001", "nats://[redacted]@a"),
        ("nats://good:1,junk", "TM-CFG-1001", "junk"),
        ("tls://a,nats://b", "TM-CFG-1002", "'nats://b' beside tls://"),
        ("nats://a,,nats://b", "TM-CFG-1001", "empty entry"),
    ],
)
def test_everything_else_is_refused_by_name(value: str, code: str, named: str) -> None:
    assert load_errors({SERVERS: value}) == [(code, SERVERS)]
    assert named in told(value)


@pytest.mark.parametrize(
    "value",
    [
        "nats://user:hush@a:99999",
        "nats://user:hush@a:1/path",
        "nats://user:hu@hush@a:x",
        "nats://user:x/hush@a",
        "nats://user:hush,rest@a:1",
        "nats://user:x,hush@a:1",
        "nats://user:hush@a,tls://user:hush@b",
        "user:hush@a:1",
        "nats://user:hush@a,,",
        "nats://user:hush" + "x" * 200 + "@a:0",
    ],
)
def test_no_password_is_in_an_error(value: str) -> None:
    assert "hush" not in told(value)


def test_no_password_is_shown() -> None:
    text = "\n".join(shown_lines(load([(SERVERS, "nats://user:hush@a:1")], environment={})))
    assert "hush" not in text and "nats://[redacted]@a:1" in text


def test_replicas_are_odd() -> None:
    for text in ("1", "3", "5"):
        assert load_settings({"cluster.nats.replicas": text}).cluster.nats.replicas == int(text)
    for text in ("0", "2", "4", "6", "7"):
        assert load_errors({"cluster.nats.replicas": text}) == [("TM-CFG-1002", "cluster.nats.replicas")]
    assert load_errors({"cluster.nats.replicas": "three"}) == [("TM-CFG-1001", "cluster.nats.replicas")]


def credentials(folder: Path, content: str | bytes, mode: int = 0o600) -> NatsSettings:
    file = folder / "nats.creds"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    file.chmod(mode)
    return NatsSettings(credentials_file=file)


def refusal(settings: NatsSettings) -> list[tuple[str, str, str]]:
    with pytest.raises(ConfigError) as caught:
        check_files(settings)
    return [(problem.code, problem.name.removeprefix("cluster.nats."), problem.rule) for problem in caught.value.problems]


@pytest.mark.parametrize("content", [SEED, f"\n{SEED}\r\n", CREDS, CREDS.replace("\n", "\r\n"), "# of nats-1\n" + CREDS])
def test_credentials_are_taken(tmp_path: Path, content: str) -> None:
    check_files(credentials(tmp_path, content))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "rubbish",
        b"\xff\x00\xfe",
        SEED[:-1],
        SEED + "A",
        SEED + "\n" + SEED,
        SEED.lower(),
        SEED[:20] + ("A" if SEED[20] != "A" else "B") + SEED[21:],
        "SA" + SEED[2:],
        CREDS.replace("USER JWT", "JWT"),
        CREDS.replace("USER NKEY SEED", "SEED"),
        CREDS.replace(SEED, SEED[:-1]),
        CREDS.replace("eyJ0.eyJq.c2ln", "eyJ0.eyJq"),
        CREDS.replace("eyJ0.eyJq.c2ln\n", ""),
        " " * FILE_BYTES_MAX + SEED,
    ],
)
def test_what_is_no_credentials_is_refused_without_its_content(tmp_path: Path, content: str | bytes) -> None:
    ((code, name, rule),) = refusal(credentials(tmp_path, content))
    assert (code, name) == ("TM-CFG-1007", "credentials_file")
    assert SEED[2:20] not in rule and "rubbish" not in rule


def test_credentials_are_nobody_elses(tmp_path: Path) -> None:
    for owner, good, bad in ((0, (0o400, 0o600, 0o440, 0o640), (0o660, 0o644, 0o604)), (12345, (0o600,), (0o440, 0o644, 0o620))):
        for mode in (*good, *bad):
            settings = credentials(tmp_path, SEED, mode)
            assert settings.credentials_file is not None
            os.chown(settings.credentials_file, owner, -1)
            if mode in good:
                check_files(settings)
            else:
                ((code, name, rule),) = refusal(settings)
                assert (code, name) == ("TM-CFG-1004", "credentials_file") and f"{mode:04o}" in rule


def test_certificates_of_nats_are_looked_at(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key, other_cert, other_key = (tmp_path / name for name in ("c", "k", "oc", "ok"))
    authority.issue(cert, key, "a")
    authority.issue(other_cert, other_key, "b")
    junk = tmp_path / "junk"
    junk.write_text("junk")
    check_files(NatsSettings(tls=NatsTlsSettings(authority.ca_file, cert, key)))
    check_files(NatsSettings(tls=NatsTlsSettings(authority.ca_file, None, None)))
    for tls, expected in (
        (NatsTlsSettings(key, cert, key), [("TM-CFG-1007", "tls.ca_file")]),
        (NatsTlsSettings(junk, None, None), [("TM-CFG-1007", "tls.ca_file")]),
        (NatsTlsSettings(authority.ca_file, cert, other_key), [("TM-CFG-1007", "tls.cert_file")]),
        (NatsTlsSettings(junk, junk, key), [("TM-CFG-1007", "tls.ca_file"), ("TM-CFG-1007", "tls.cert_file")]),
        (NatsTlsSettings(tmp_path / "none", None, None), [("TM-CFG-1003", "tls.ca_file")]),
    ):
        assert [each[:2] for each in refusal(NatsSettings(tls=tls))] == expected


@pytest.mark.parametrize("command", [("config", "check"), ("serve",), ("cluster", "reseed")])
def test_files_are_looked_at_by_whatever_uses_them(tmp_path: Path, command: tuple[str, ...]) -> None:
    file = credentials(tmp_path, "rubbish").credentials_file
    options = ("--cluster.enabled=true", f"--{SERVERS}=nats://127.0.0.1:1", f"--storage.dir={tmp_path / 'data'}")
    done = run_command(*command, *options, f"--cluster.nats.credentials_file={file}")
    assert done.returncode == 78 and "TM-CFG-1007 cluster.nats.credentials_file" in done.stderr, done.stderr
