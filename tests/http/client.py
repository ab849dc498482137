"""A plain HTTP client for tests that look at every byte of an answer, and the checks every answer must pass."""

import http.client
import itertools
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tokmesh.errors import ERRORS

_numbers = itertools.count(1)

# Texts that would come from inside: tracebacks, exceptions of Python or of a parser, paths, names of modules.
_LEAK = re.compile(rb"Traceback|Exception|[a-z]Error\b|Expecting|\.pyx?\b|/tokmesh/|(line|column|char) \d|orjson|errno")


class Answer(NamedTuple):
    """One answer. headers: lower-case names; request_id: the one that was sent."""

    status: int
    headers: dict[str, str]
    body: bytes
    request_id: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> Any:
        """`data` of a successful answer, whose envelope is checked."""
        assert self.status == 200, (self.status, self.body)
        envelope = self.json
        assert set(envelope) == {"code", "message", "request_id", "timestamp", "data"}, envelope
        assert (envelope["code"], envelope["message"]) == ("OK", "Success")
        self._check_envelope(envelope)
        return envelope["data"]

    def refused(self, code: str) -> dict[str, Any]:
        """`details` of a refusal, whose code, status, envelope and discretion are checked."""
        envelope = self.json
        assert envelope.get("code") == code, (code, self.status, self.body[:500])
        assert self.status == ERRORS[code].status, self.body
        assert set(envelope) - {"details"} == {"code", "message", "request_id", "timestamp"}, envelope
        assert envelope["message"] == ERRORS[code].message
        assert isinstance(envelope.get("details", {}), dict)
        self._check_envelope(envelope)
        assert _LEAK.search(self.body) is None, self.body
        if self.status in (429, 503):
            assert int(self.headers["retry-after"]) >= 1
        if self.status == 405:
            assert self.headers["allow"]
        details: dict[str, Any] = envelope.get("details", {})
        return details

    def _check_envelope(self, envelope: dict[str, Any]) -> None:
        assert self.headers["content-type"].split(";")[0] == "application/json"
        assert int(self.headers["content-length"]) == len(self.body)
        assert envelope["request_id"] == self.request_id == self.headers["x-request-id"]
        assert isinstance(envelope["timestamp"], int) and envelope["timestamp"] > 1_700_000_000_000


def exchange(
    port: int,
    method: str,
    path: str,
    body: bytes | str | Mapping[str, Any] | list[Any] | None = None,
    *,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request on a connection of its own. A mapping or a list is sent as JSON; `key` as a Bearer credential."""
    request_id = f"test-{next(_numbers)}"
    sent = {"X-Request-ID": request_id, **({"Authorization": f"Bearer {key}"} if key else {}), **(headers or {})}
    if isinstance(body, Mapping | list):
        body = json.dumps(body).encode()
    elif isinstance(body, str):
        body = body.encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        try:
            connection.request(method, path, body=body, headers=sent)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused on its head, before the whole body was sent: the answer is there
        response = connection.getresponse()
        return Answer(
            response.status,
            {name.lower(): value for name, value in response.getheaders()},
            response.read(),
            request_id,
        )
    finally:
        connection.close()
