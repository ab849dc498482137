"""The TLS context: what it offers, and a code for everything that can be wrong with its files."""

import ssl
import subprocess
from pathlib import Path

import pytest

from tests.support.certificates import make_certificate
from tokmesh.config import ConfigError
from tokmesh.config.keys import TlsSettings
from tokmesh.host.tls import server_context


def test_a_good_pair_makes_a_strict_context(tmp_path: Path) -> None:
    cert_file, key_file = make_certificate(tmp_path)
    context = server_context(TlsSettings(cert_file, key_file, None))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_NONE
    context = server_context(TlsSettings(cert_file, key_file, cert_file))
    assert context.verify_mode == ssl.CERT_REQUIRED


def test_every_defect_has_its_code(tmp_path: Path) -> None:
    cert_file, key_file = make_certificate(tmp_path)
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    _, other_key = make_certificate(other_folder)
    junk = tmp_path / "junk.pem"
    junk.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    locked = tmp_path / "locked.pem"
    subprocess.run(
        ["openssl", "rsa", "-aes256", "-passout", "pass:x", "-in", str(key_file), "-out", str(locked)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    for tls, expected in (
        (TlsSettings(None, key_file, None), ["TM-CFG-1006"]),
        (TlsSettings(tmp_path / "a", tmp_path / "b", tmp_path / "c"), ["TM-CFG-1003"] * 3),
        (TlsSettings(junk, key_file, None), ["TM-CFG-1007"]),
        (TlsSettings(cert_file, other_key, None), ["TM-CFG-1007"]),
        (TlsSettings(cert_file, locked, None), ["TM-CFG-1007"]),
        (TlsSettings(cert_file, key_file, junk), ["TM-CFG-1007"]),
    ):
        with pytest.raises(ConfigError) as caught:
            server_context(tls)
        assert [problem.code for problem in caught.value.problems] == expected


def test_a_file_that_cannot_be_opened_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    loop = tmp_path / "loop.pem"
    loop.symlink_to(loop)
    with pytest.raises(ConfigError) as caught:
        server_context(TlsSettings(tmp_path, loop, tmp_path / "none.pem"))
    assert [(problem.code, problem.source, problem.rule) for problem in caught.value.problems] == [
        ("TM-CFG-1003", f"file {tmp_path}", "it is a directory, not a file"),
        ("TM-CFG-1003", f"file {loop}", "the file cannot be read: Too many levels of symbolic links"),
        ("TM-CFG-1003", f"file {tmp_path}/none.pem", "there is no such file"),
    ]
