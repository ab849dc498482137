"""Splits what a server sent into answers, strictly: a test must not forgive what a client would not."""

import json
import re
from typing import Any, Final, NamedTuple

_STATUS: Final = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [A-Za-z -]+")


class Reply(NamedTuple):
    """One answer: status, header fields by lower-case name, body bytes."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def envelope(self) -> dict[str, Any]:
        """The body as the JSON object it must be."""
        decoded = json.loads(self.body)
        assert isinstance(decoded, dict)
        return decoded


def split_answers(received: bytes) -> list[Reply]:
    """Every complete answer in `received`; fails on anything that is none, also on bytes left over."""
    answers = []
    while received:
        head, separator, rest = received.partition(b"\r\n\r\n")
        assert separator, f"answer without an end of its head: {received[:200]!r}"
        line, *fields = head.split(b"\r\n")
        status = _STATUS.fullmatch(line)
        assert status, f"bad status line: {line!r}"
        headers: dict[str, str] = {}
        for field in fields:
            name, colon, value = field.decode("ascii").partition(": ")
            assert colon, f"bad field: {field!r}"
            assert name.lower() not in headers, f"repeated field: {field!r}"
            headers[name.lower()] = value
        size = int(headers["content-length"])
        assert len(rest) >= size, f"answer cut short: {len(rest)} of {size} bytes"
        answers.append(Reply(int(status[1]), headers, rest[:size]))
        received = rest[size:]
    return answers
