"""`tokmesh log-level get|set`: what the server on this host logs at this moment, through its administration socket."""

import argparse
import json
from pathlib import Path
from typing import Any

from tokmesh.cli.config import load_options
from tokmesh.cli.local import call
from tokmesh.cli.table import shown_time
from tokmesh.config.values import BadValue, duration
from tokmesh.errors import EX_OK, ApiError

_PATH = "/admin/v1/log-level"


def run(options: argparse.Namespace, settings: list[tuple[str, str]]) -> int:
    """Runs one action. Raises ApiError (the server's refusal, or TM-SYS-5030 without a server) or ConfigError."""
    directory = load_options(options, settings).settings.storage.dir
    if options.action == "get":
        state = call(directory, "GET", _PATH)
    else:
        body: dict[str, Any] = {"level": options.level}
        if options.time:
            body["revert_after_seconds"] = _seconds(options.time)
        state = call(directory, "POST", _PATH, body)
    print(json.dumps(state) if options.json else _told(state))
    return EX_OK


def _seconds(text: str) -> int:
    try:
        time_ms: int = duration("1s", "1d").parse(text, Path())
    except BadValue:
        raise ApiError("TM-ARG-1001", {"--for": "must be a number and a unit from 1s to 1d, such as 10m"}) from None
    return time_ms // 1000


def _told(state: dict[str, Any]) -> str:
    if state["reverts_at"] is None:
        return str(state["level"])
    return f"{state['level']} until {shown_time(state['reverts_at'])}, then {state['configured']}"
