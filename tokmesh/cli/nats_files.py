"""The files that `cluster.nats` names, looked at before anything is started: a defect is an error here, not an endless wait."""

import ssl
import stat
from dataclasses import replace
from pathlib import Path
from typing import Final

from tokmesh.config import ConfigError, Problem, why_unreadable
from tokmesh.config.keys import NatsSettings, NatsTlsSettings

_PREFIX: Final = "cluster.nats"


def check_files(settings: NatsSettings) -> None:
    """Raises ConfigError with every problem: TM-CFG-1003 (missing), 1004 (permissions), 1007 (not usable), 1006 (no nkeys)."""
    problems = [*_of_credentials(settings.credentials_file), *_of_tls(settings.tls)]
    if problems:
        raise ConfigError(problems)


def _of_credentials(path: Path | None) -> list[Problem]:
    if path is None:
        return []
    try:
        import nkeys  # noqa: F401
    except ImportError:
        return [Problem("TM-CFG-1006", f"{_PREFIX}.credentials_file", "", "needs nkeys: pip install 'tokmesh[cluster]'")]
    from tokmesh.cluster.credentials import BadCredentials, read_credentials

    def problem(code: str, rule: str) -> list[Problem]:
        return [Problem(code, f"{_PREFIX}.credentials_file", f"file {path}", rule)]

    try:
        status = path.stat()
        others = 0o037 if status.st_uid == 0 else 0o077  # what Kubernetes mounts is root's, and a pod reads it by its group
        if status.st_mode & others:
            mode = stat.S_IMODE(status.st_mode)
            return problem("TM-CFG-1004", f"it has mode {mode:04o}: others can read or change it; run chmod 600")
        read_credentials(path)
    except OSError as error:
        return problem(*why_unreadable(error))
    except BadCredentials as error:
        return problem("TM-CFG-1007", str(error))
    return []


def _of_tls(tls: NatsTlsSettings) -> list[Problem]:
    from tokmesh.cluster.connection import tls_context

    problems = []
    for name, part, what in (
        ("ca_file", replace(tls, cert_file=None, key_file=None), "not usable as authorities"),
        ("cert_file", replace(tls, ca_file=None), "not a usable certificate and key pair"),
    ):
        try:
            tls_context(part)
        except (ssl.SSLError, ValueError) as error:
            code, rule = "TM-CFG-1007", f"{what} ({getattr(error, 'reason', None) or 'not PEM'})"
        except OSError as error:
            code, rule = why_unreadable(error)
        else:
            continue
        problems.append(Problem(code, f"{_PREFIX}.tls.{name}", f"file {getattr(tls, name)}", rule))
    return problems
