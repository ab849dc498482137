"""Whoever reads a private key cannot be dumped or traced by others by then, and writes files that only the owner can read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.kills import strace
from tests.support.server import clean_environment

HARD = ("prctl(PR_SET_DUMPABLE, SUID_DUMP_DISABLE)", "RLIMIT_CORE, {rlim_cur=0, rlim_max=0}", "umask(077)")
TLS = ("--server.https.enabled=true", "--server.https.tls.cert_file=/etc/passwd", "--server.https.tls.key_file={key}")
NATS = ("--cluster.enabled=true", "--cluster.nats.servers=nats://127.0.0.1:1", "--cluster.nats.credentials_file={key}")
ENCRYPTION = ("--storage.encryption.key_file={key}",)


@pytest.mark.parametrize(
    "line",
    [
        ("serve", *TLS),
        ("serve", *NATS),
        ("config", "check", *TLS),
        ("config", "check", *ENCRYPTION),
        ("cluster", "reseed", *NATS),
        ("wal", "verify", *ENCRYPTION),
        ("backup", "verify", "none", *ENCRYPTION),
        ("storage", "rekey", *ENCRYPTION),
    ],
    ids=lambda line: " ".join(line[:2]),
)
def test_a_process_is_hard_before_it_reads_a_private_key(tmp_path: Path, line: tuple[str, ...]) -> None:
    key, calls, log = tmp_path / "private", tmp_path / "calls", tmp_path / "data" / "log"
    log.mkdir(parents=True, mode=0o700)
    (log / "wal-00000000000000000001.log").touch()
    key.touch(mode=0o600)
    command = [sys.executable, "-m", "tokmesh", *(word.format(key=key) for word in line), f"--storage.dir={tmp_path / 'data'}"]
    trace = strace(["--seccomp-bpf", "-o", str(calls), "-e", "trace=open,openat,prctl,setrlimit,prlimit64,umask"])
    environment = clean_environment() | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([*trace, *command], env=environment, capture_output=True, text=True, timeout=120, check=False)
    told = calls.read_text()
    place = told.find(os.fspath(key))
    assert place >= 0, done.stderr
    assert [told.find(call) in range(place) for call in HARD] == [True] * len(HARD), done.stderr
