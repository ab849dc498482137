"""Where keys come from: what is taken, and what is refused, with its source, place and rule, and never with a key."""

import base64
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.config import load_errors, load_settings
from tests.support.encryption import new_key, write_keys
from tokmesh.config import ConfigError, load
from tokmesh.config.keys import EncryptionSettings
from tokmesh.host import encryption_keys
from tokmesh.host.encryption_keys import read_keys
from tokmesh.storage.encryption import KeySet

KEY = bytes(range(200, 232))
IDS = KeySet([KEY]).key_ids
TEXT = base64.b64encode(KEY).decode()


def of_file(path: Path) -> EncryptionSettings:
    return EncryptionSettings(key_file=path)


def of_command(*words: str, timeout_ms: int = 10_000) -> EncryptionSettings:
    return EncryptionSettings(key_command=words, key_command_timeout_ms=timeout_ms)


def refusal(settings: EncryptionSettings) -> tuple[str, str, str]:
    """(code, key, source and rule)."""
    with pytest.raises(ConfigError) as caught:
        read_keys(settings)
    (problem,) = caught.value.problems
    return problem.code, problem.name, f"{problem.source}: {problem.rule}"


@pytest.mark.parametrize("text", [TEXT, KEY.hex(), KEY.hex().upper(), base64.urlsafe_b64encode(KEY).decode(), TEXT.rstrip("=")])
@pytest.mark.parametrize("form", ["{}", "{}\n", "# of 2026\n\n  {}  \r\n"])
def test_a_key_is_read_in_base64_and_hex(tmp_path: Path, text: str, form: str) -> None:
    keys = read_keys(of_file(write_keys(tmp_path / "keys", form.format(text))))
    assert keys is not None and keys.key_ids == IDS


def test_the_first_line_is_the_first_key(tmp_path: Path) -> None:
    first = new_key()
    keys = read_keys(of_file(write_keys(tmp_path / "keys", first, TEXT)))
    assert keys is not None and keys.key_ids == (KeySet([base64.b64decode(first)]).first_id, *IDS)


def test_no_source_is_no_key() -> None:
    assert read_keys(EncryptionSettings()) is None


@pytest.mark.parametrize(
    ("text", "code", "rule"),
    [
        (base64.b64encode(KEY[:31]).decode(), "TM-CFG-1002", "line 1 has 31 bytes, and 32 are needed"),
        (KEY[:16].hex(), "TM-CFG-1002", "line 1 has 16 bytes, and 32 are needed"),
        (f"{TEXT}\n{base64.b64encode(KEY + b'x').decode()}", "TM-CFG-1002", "line 2 has 33 bytes"),
        ("correct horse battery staple", "TM-CFG-1001", "line 1 is not 32 bytes in base64 or hex"),
        (TEXT[:-5] + "é" + TEXT[-4:], "TM-CFG-1001", "line 1 is not 32 bytes"),
        ("0" * 64, "TM-CFG-1002", "line 1 is not random"),
        (base64.b64encode(b"abcdefghijk" * 2 + b"aaaaaaaaaa").decode(), "TM-CFG-1002", "line 1 is not random"),
        ("# nothing\n", "TM-CFG-1002", "it holds 0 keys"),
        ("\n".join(new_key() for _ in range(65)), "TM-CFG-1002", "it holds 65 keys, and 1 to 64"),
        ("#" * 65_537, "TM-CFG-1002", "more than 65536 bytes"),
    ],
)
def test_what_is_no_key_is_refused_with_its_line_and_without_its_text(tmp_path: Path, text: str, code: str, rule: str) -> None:
    path = tmp_path / "keys"
    path.touch(mode=0o600)
    path.write_text(text)
    found = refusal(of_file(path))
    assert found[:2] == (code, "storage.encryption.key_file")
    assert f"file {path}: " in found[2] and rule in found[2]
    assert not any(
        line[at : at + 8] in found[2] for line in text.splitlines() for at in range(0, len(line) - 8, 8) if line[0] != "#"
    )


def test_limits_are_met_from_below(tmp_path: Path) -> None:
    keys = read_keys(of_file(write_keys(tmp_path / "keys", *(new_key() for _ in range(64)))))
    assert keys is not None and len(keys.key_ids) == 64
    exact = write_keys(tmp_path / "exact", TEXT)
    with exact.open("a") as file:
        file.write("#" * (65_536 - exact.stat().st_size))
    keys = read_keys(of_file(exact))
    assert keys is not None and keys.key_ids == IDS
    twelve = base64.b64encode(b"abcdefghijkl" + b"a" * 20).decode()
    assert read_keys(of_file(write_keys(tmp_path / "twelve", twelve))) is not None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o660, 0o644])
def test_a_file_that_others_can_read_or_change_is_refused_with_the_cure(tmp_path: Path, mode: int) -> None:
    path = write_keys(tmp_path / "keys", TEXT)
    path.chmod(mode)
    code, _, rule = refusal(of_file(path))
    assert code == "TM-CFG-1004" and f"mode {mode:04o}" in rule and "chmod 600" in rule
    path.chmod(0o400)
    assert read_keys(of_file(path)) is not None


def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "keys", TEXT)
    os.chown(path, 12345, -1)
    code, _, rule = refusal(of_file(path))
    assert code == "TM-CFG-1004" and "belongs to user 12345" in rule


def make_fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize(("make", "code"), [(make_fifo, "TM-CFG-1004"), (Path.mkdir, "TM-CFG-1004"), (str, "TM-CFG-1003")])
def test_what_is_no_file_is_refused_and_nothing_waits_for_it(tmp_path: Path, make: Callable[[Path], object], code: str) -> None:
    path = tmp_path / "keys"
    make(path)
    assert refusal(of_file(path))[0] == code


def test_a_file_that_cannot_be_opened_or_read_is_told_with_what_is_wrong(tmp_path: Path) -> None:
    loop = tmp_path / "keys"
    loop.symlink_to(loop)
    assert refusal(of_file(loop))[::2] == (
        "TM-CFG-1003", f"file {loop}: the file cannot be read: Too many levels of symbolic links",
    )  # fmt: skip
    memory = Path("/proc/self/mem")  # a regular file of this user that opens, and has nothing at its beginning
    assert refusal(of_file(memory))[::2] == ("TM-CFG-1003", f"file {memory}: the file cannot be read: Input/output error")


def test_a_link_is_judged_by_what_it_leads_to(tmp_path: Path) -> None:
    """Kubernetes mounts a secret as a link."""
    target = write_keys(tmp_path / "target", TEXT)
    (tmp_path / "keys").symlink_to(target)
    assert read_keys(of_file(tmp_path / "keys")) is not None
    target.chmod(0o644)
    assert refusal(of_file(tmp_path / "keys"))[0] == "TM-CFG-1004"


def test_a_variable_holds_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_KEYS", f"{TEXT}\n{new_key()}")
    keys = read_keys(EncryptionSettings(key_variable="STORAGE_KEYS"))
    assert keys is not None and keys.key_ids[0] == IDS[0] and len(keys.key_ids) == 2
    monkeypatch.delenv("STORAGE_KEYS")
    assert refusal(EncryptionSettings(key_variable="STORAGE_KEYS"))[0] == "TM-CFG-1003"
    monkeypatch.setenv("STORAGE_KEYS", "short")
    code, name, rule = refusal(EncryptionSettings(key_variable="STORAGE_KEYS"))
    assert (code, name) == ("TM-CFG-1001", "storage.encryption.key_variable") and "environment STORAGE_KEYS" in rule


def test_a_command_prints_keys() -> None:
    keys = read_keys(of_command("/bin/echo", TEXT))
    assert keys is not None and keys.key_ids == IDS
    keys = read_keys(of_command("/bin/sh", "-c", f"echo {TEXT}; echo a secret in a message >&2"))
    assert keys is not None and keys.key_ids == IDS


@pytest.mark.parametrize(
    ("script", "code", "rule"),
    [
        (f"echo {TEXT}; exit 3", "TM-CFG-1006", "failed with status 3"),
        (f"echo {TEXT}; kill -9 $$", "TM-CFG-1006", "failed with status -9"),
        ("true", "TM-CFG-1002", "it holds 0 keys"),
        ("echo short", "TM-CFG-1001", "line 1 is not 32 bytes"),
        ("exec cat /dev/zero", "TM-CFG-1002", "more than 65536 bytes"),
    ],
)
def test_a_command_that_gives_no_keys_is_refused(script: str, code: str, rule: str) -> None:
    found = refusal(of_command("/bin/sh", "-c", script))
    assert found[:2] == (code, "storage.encryption.key_command")
    assert found[2].startswith("command /bin/sh: ") and rule in found[2] and TEXT not in found[2]


def test_a_command_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refusal(of_command(str(tmp_path / "none")))[0] == "TM-CFG-1003"
    (tmp_path / "text").write_text("")
    assert refusal(of_command(str(tmp_path / "text")))[0] == "TM-CFG-1003"


@pytest.mark.parametrize("script", ["sleep 600 & wait", f"echo {TEXT}; exec >&-; sleep 600"])
def test_a_command_has_its_time_and_what_it_started_ends_with_it(tmp_path: Path, script: str) -> None:
    started_s = time.monotonic()
    code, _, rule = refusal(of_command("/bin/sh", "-c", f"echo $$ > {tmp_path}/pid; {script}", timeout_ms=500))
    assert code == "TM-CFG-1006" and "within 0.5 s" in rule
    assert time.monotonic() - started_s < 60
    group = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        for _ in range(1000):  # the kernel may still be at it
            os.killpg(group, 0)
            time.sleep(0.01)


def test_keys_come_from_one_place_and_encryption_needs_one(tmp_path: Path) -> None:
    path = str(write_keys(tmp_path / "keys", TEXT))
    prefix = "storage.encryption."
    assert load_errors({f"{prefix}enabled": "true"}) == [("TM-CFG-1006", f"{prefix}key_file")]
    for name, value in (("key_command", "[/bin/echo, x]"), ("key_variable", "STORAGE_KEYS")):
        assert load_errors({f"{prefix}key_file": path, f"{prefix}{name}": value}) == [("TM-CFG-1005", f"{prefix}{name}")]
        assert load_settings({f"{prefix}enabled": "true", f"{prefix}{name}": value}).storage.encryption.enabled
    assert not load_settings({f"{prefix}key_file": path}).storage.encryption.enabled, "to read what was encrypted before"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("key_command", "[vault, get]"),
        ("key_command", "echo"),
        ("key_variable", "TOKMESH_KEYS"),
        ("key_variable", "1A"),
        ("key_variable", "A B"),
    ],
)
def test_commands_are_absolute_and_variables_are_no_settings(name: str, value: str) -> None:
    assert load_errors({f"storage.encryption.{name}": value}) == [("TM-CFG-1002", f"storage.encryption.{name}")]


def test_without_the_package_encryption_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokmesh.config.loading.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install tokmesh\[encryption\]") as caught:
        load([("storage.encryption.enabled", "true"), ("storage.encryption.key_variable", "STORAGE_KEYS")], environment={})
    assert [(each.code, each.name) for each in caught.value.problems] == [("TM-CFG-1006", "storage.encryption.enabled")]


def test_nobody_who_does_not_encrypt_needs_the_package() -> None:
    modules = "tokmesh.app, tokmesh.cli.serve, tokmesh.cli.config, tokmesh.cli.storage, tokmesh.cli.wal"
    program = f"import sys, {modules}; print([name for name in sys.modules if name.startswith('cryptography')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_both_sides_mean_the_same_key() -> None:
    from tokmesh.storage import encryption

    assert encryption_keys.KEY_BYTES == encryption.KEY_BYTES
