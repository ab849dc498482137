"""`tokmesh key create|list|disable|enable`: API keys of the server on this host, through its administration socket."""

import argparse
import json
import time
from pathlib import Path
from typing import Any, Final

from tokmesh.cli.config import load_options
from tokmesh.cli.local import call, path_segment
from tokmesh.cli.table import print_rows, shown_time
from tokmesh.config.values import BadValue, duration
from tokmesh.errors import EX_OK, ApiError

PAGE_SIZE: Final = 100
PAGES_MAX: Final = 10_000


def run(options: argparse.Namespace, settings: list[tuple[str, str]]) -> int:
    """Runs one action. Raises ApiError (the server's refusal, or TM-SYS-5030 without a server) or ConfigError."""
    directory = load_options(options, settings).settings.storage.dir
    if options.action == "create":
        return _create(options, directory)
    if options.action == "list":
        return _list(options, directory)
    status = "active" if options.action == "enable" else "disabled"
    key_id = path_segment(options.key_id, "key_id", "must be the id of an API key, tmak-…").lower()
    data = call(directory, "POST", f"/admin/v1/keys/{key_id}/status", {"status": status})
    print(json.dumps(data) if options.json else f"{key_id} {status}")
    return EX_OK


def _expiry_ms(text: str) -> int:
    try:
        lifetime_ms: int = duration("1s", "36500d").parse(text, Path())
    except BadValue:
        raise ApiError("TM-ARG-1001", {"--expires-in": "must be a number and a unit, such as 90d"}) from None
    return time.time_ns() // 1_000_000 + lifetime_ms


def _create(options: argparse.Namespace, directory: Path) -> int:
    body: dict[str, Any] = {"role": options.role}
    if options.description:
        body["description"] = options.description
    if options.allow:
        body["allowedlist"] = options.allow
    if options.rate_limit is not None:
        body["rate_limit"] = options.rate_limit
    if options.expires_in:
        body["expires_at"] = _expiry_ms(options.expires_in)
    data = call(directory, "POST", "/admin/v1/keys", body)
    print(json.dumps(data) if options.json else f"{data['key_id']}:{data['key_secret']}")
    return EX_OK


def _list(options: argparse.Namespace, directory: Path) -> int:
    items: list[dict[str, Any]] = []
    for page in range(1, PAGES_MAX + 1):
        answer = call(directory, "GET", f"/admin/v1/keys?page={page}&size={PAGE_SIZE}")
        items += answer["items"]
        if len(answer["items"]) < PAGE_SIZE:
            break
    if options.json:
        print(json.dumps(items))
        return EX_OK
    rows = [("KEY ID", "ROLE", "STATUS", "EXPIRES", "DESCRIPTION")]
    for item in items:
        expires_at = item.get("expires_at")
        expires = shown_time(expires_at) if expires_at else "never"
        rows.append((item["key_id"], item["role"], item["status"], expires, _printable(item.get("description", ""))))
    print_rows(rows)
    return EX_OK


def _printable(text: str) -> str:
    """A description without control characters, which could rewrite the operator's terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
