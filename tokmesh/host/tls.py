"""The TLS context of the HTTPS listener, made from PEM files. Every defect of a file is a configuration error."""

import ssl
from pathlib import Path

from tokmesh.config import ConfigError, Problem, why_unreadable
from tokmesh.config.keys import TlsSettings

_PREFIX = "server.https.tls"


def server_context(tls: TlsSettings) -> ssl.SSLContext:
    """TLS 1.2 and later, HTTP/1.1 by ALPN; clients are asked for a certificate when `client_ca_file` is set.

    Raises ConfigError: TM-CFG-1006 (no certificate named), 1003 (file missing), 1004 (unreadable), 1007 (not usable).
    """
    if tls.cert_file is None or tls.key_file is None:
        raise ConfigError([Problem("TM-CFG-1006", f"{_PREFIX}.cert_file", "", "HTTPS needs a certificate and a key file")])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    problems = [problem for name in ("cert_file", "key_file", "client_ca_file") for problem in _readable(tls, name)]
    if problems:
        raise ConfigError(problems)
    try:
        # The callback keeps OpenSSL from asking for a passphrase at the terminal of a server.
        context.load_cert_chain(tls.cert_file, tls.key_file, password=lambda: b"")
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or "not PEM"
        rule = f"not a usable certificate and key pair ({reason})"
        raise ConfigError([Problem("TM-CFG-1007", f"{_PREFIX}.cert_file", "", rule)]) from None
    if tls.client_ca_file is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(tls.client_ca_file)
        except ssl.SSLError:
            rule = "not usable as client authorities"
            raise ConfigError([Problem("TM-CFG-1007", f"{_PREFIX}.client_ca_file", "", rule)]) from None
    return context


def _readable(tls: TlsSettings, name: str) -> list[Problem]:
    path: Path | None = getattr(tls, name)
    if path is None:
        return []
    try:
        path.open("rb").close()
    except OSError as error:
        code, rule = why_unreadable(error)
        return [Problem(code, f"{_PREFIX}.{name}", f"file {path}", rule)]
    return []
