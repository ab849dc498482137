"""Certificates for tests, made on the spot: no private key lives in the repository."""

import subprocess
from pathlib import Path


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """(certificate, key) of a self-signed server for localhost and 127.0.0.1, as PEM files in `folder`."""
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key_file), "-out", str(cert_file),
        ],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return cert_file, key_file
