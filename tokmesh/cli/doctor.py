"""`tokmesh doctor`: what is wrong with the server on this host, in words.

The server judges (`status/summary`), and what it says is told here, with nothing added, as by `tokmesh top` and the status
page. One that does not serve yet says what it waits for. When none answers, its configuration and its host are judged with the
same rules. Exit code: 0 nothing is wrong, 1 something is, 69 no server answers.
"""

import argparse
import json
import textwrap
from pathlib import Path
from typing import Any, Final

from tokmesh.cli.config import load_options
from tokmesh.cli.local import call
from tokmesh.cli.starting import waits_for
from tokmesh.console import load_runbooks
from tokmesh.errors import EX_FAILURE, EX_OK, EX_UNAVAILABLE, ApiError
from tokmesh.host.clock_discipline import clock_synchronised
from tokmesh.telemetry.conditions import RULES, Readings, judge

COLUMNS: Final = 100
_SUMMARY: Final = "/admin/v1/status/summary"

SYNCS: Final = {"always": "yes", "off": "no", "unknown": "not known, the servers do not tell"}

Finding = dict[str, Any]  # code, severity, words, runbook


def run(options: argparse.Namespace, settings: list[tuple[str, str]]) -> int:
    """Looks and tells. Raises ConfigError, and ApiError for what cannot be explained or is not this user's to ask."""
    if options.explain:
        print(_explained(options.explain), end="")
        return EX_OK
    loaded = load_options(options, settings)
    summary = _summary(loaded.settings.storage.dir)
    waiting = waits_for(loaded.settings.storage.dir) if summary is None else None
    if summary is None:
        from tokmesh.derived import posture_of  # with it comes much of the server, which the usual case does not need

        of_host = judge(Readings(clock_synchronised=clock_synchronised()))
        findings = [condition._asdict() for condition in (*posture_of(loaded.settings).conditions(), *of_host)]
        findings += [_not_ready(name, reason) for name, reason in (waiting or {}).items()]
    else:
        failed = [check for check in summary["readiness"]["checks"] if not check["ok"]]
        findings = [*summary["conditions"], *(_not_ready(check["name"], check["reason"]) for check in failed)]
    findings.sort(key=lambda finding: finding["severity"] != "critical")
    if options.json:
        print(json.dumps({"server": summary is not None or waiting is not None, "findings": findings}))
    else:
        print(_told(summary, findings, is_starting=waiting is not None), end="")
    if summary is None and waiting is None:
        return EX_UNAVAILABLE
    return EX_FAILURE if findings else EX_OK


def _summary(directory: Path) -> dict[str, Any] | None:
    """What the server says of itself; None when none answers. Raises ApiError when it answers with a refusal."""
    try:
        summary: dict[str, Any] = call(directory, "GET", _SUMMARY)
    except ApiError as error:
        if error.code == "TM-SYS-5030":
            return None
        raise
    return summary


def _not_ready(name: str, reason: str) -> Finding:
    return {"code": f"not ready: {name}", "severity": "critical", "words": reason, "runbook": None}


def _told(summary: dict[str, Any] | None, findings: list[Finding], *, is_starting: bool) -> str:
    if is_starting:
        lines = ["The server does not serve yet: what follows is what it waits for, its configuration and its host."]
    elif summary is None:
        lines = ["No server answers: what follows is about its configuration and its host."]
    else:
        node = summary["node"]
        lines = [f"TokMesh {node['version']} on {node['id']}, up for {node['uptime_seconds']:.0f} s."]
        lines += _way_to_nats(summary["cluster"]["nats"])
    for finding in findings:
        lines += ["", f"{finding['severity'].upper()}  {finding['code']}"]
        lines += textwrap.wrap(finding["words"], COLUMNS, initial_indent="  ", subsequent_indent="  ")
        if finding["runbook"]:
            lines.append(f"  What to do: tokmesh doctor --explain {finding['code']}")
    if not findings:
        lines.append("Nothing is wrong." if summary is not None else "Nothing is wrong with those.")
    return "\n".join(lines) + "\n"


def _way_to_nats(nats: dict[str, Any] | None) -> list[str]:
    """One line on a node of a cluster."""
    if nats is None:
        return []
    reason = "" if nats["reason"] is None else f" ({nats['reason']})"
    return [f"NATS {nats['version'] or ''}: {nats['state']}{reason}; each record synced: {SYNCS[nats['sync']]}."]


def _explained(code: str) -> str:
    """The runbook of a condition or an alert. Raises TM-ARG-1001."""
    runbook = load_runbooks().get(f"{code}.md")
    if runbook is None:
        raise ApiError("TM-ARG-1001", {"--explain": f"must be the name of an alert or condition, such as {RULES[0].code}"})
    return runbook.body.decode()
