"""The audit trail: who did what to what, and whether it was allowed. Marked log lines, and a list to ask for.

Events: keys made and switched; every other change an administrator asks for; sessions of a user revoked together; a
configuration reloaded by signal; administration denied. An entry:

    {"id": 7, "timestamp": ms, "event": "key.created", "actor": "tmak-…" or "local" or "server" or "anonymous",
     "request_id": "req-…", "address": "192.0.2.1", "target": "tmak-…", "outcome": "ok" or a code, "details": {…}}

Invariants: every entry is also a log line with "audit": true, whatever the log level. Ids rise by one, also across restarts.
Entries carry no secret: every text is redacted. What was done is never left out; denied attempts are what anybody can cause,
so beyond DENIALS_PER_SECOND they are told by one entry a second with their number ("repeated"), and in memory they have a
ring of their own, so that they push out nothing else.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from tokmesh.telemetry.logs.audit_file import AuditFile
from tokmesh.telemetry.logs.redaction import plain, redact

ENTRIES_MAX: Final = 2000
DENIALS_MAX: Final = 500
DENIALS_PER_SECOND: Final = 10
TEXT_CHARS_MAX: Final = 256
DENIED: Final = "admin.denied"
OK: Final = "ok"

_logger = logging.getLogger("tokmesh.audit")


class AuditTrail:
    """The trail of one process, on the loop's thread. now_ms: Unix time; file: keeps it across restarts, None: nothing does."""

    def __init__(self, now_ms: Callable[[], int], file: AuditFile | None = None) -> None:
        self._now_ms = now_ms
        self._file = file
        self._done: deque[dict[str, Any]] = deque(maxlen=ENTRIES_MAX)
        self._denied: deque[dict[str, Any]] = deque(maxlen=DENIALS_MAX)
        self._last_id = 0
        self._denials = 0  # in the second under way
        self._summary: asyncio.TimerHandle | None = None
        _logger.setLevel(logging.INFO)  # of its own: an audit line is logged at every level
        for entry in file.load() if file is not None else ():
            self._keep(entry)
            self._last_id = max(self._last_id, entry["id"])

    @property
    def lost(self) -> int:
        """Entries that the file could not take."""
        return 0 if self._file is None else self._file.lost

    def record(
        self,
        event: str,
        *,
        actor: str,
        request_id: str = "",
        address: str = "",
        target: str = "",
        outcome: str = OK,
        details: Mapping[str, object] | None = None,
    ) -> None:
        """Adds an entry and logs it. outcome: OK, or the code of the refusal."""
        self._last_id += 1
        entry: dict[str, Any] = {
            "id": self._last_id,
            "timestamp": self._now_ms(),
            "event": event,
            "actor": actor,
            "request_id": request_id,
            "address": address,
            "target": redact(target[:TEXT_CHARS_MAX]),
            "outcome": outcome,
            "details": plain(dict(details or {})),
        }
        self._keep(entry)
        if self._file is not None:
            self._file.append(json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))
        told = {name: value for name, value in entry.items() if name not in ("timestamp", "request_id") and value not in ("", {})}
        told |= {"request_id": request_id} if request_id else {}
        _logger.info("%s", event, extra={"audit": True, **told})

    def denied(self, *, actor: str, request_id: str, address: str, target: str, outcome: str) -> None:
        """Adds an attempt at administration that was refused; on the running loop."""
        self._denials += 1
        if self._summary is None:
            self._summary = asyncio.get_running_loop().call_later(1.0, self._summarise)
        if self._denials <= DENIALS_PER_SECOND:
            self.record(DENIED, actor=actor, request_id=request_id, address=address, target=target, outcome=outcome)

    def recent(self) -> list[dict[str, Any]]:
        """The entries in memory, newest first."""
        return sorted([*self._done, *self._denied], key=lambda entry: int(entry["id"]), reverse=True)

    def close(self) -> None:
        """Tells what is counted and waits for the file."""
        if self._summary is not None:
            self._summary.cancel()
            self._summarise()
        if self._file is not None:
            self._file.close()

    def _summarise(self) -> None:
        self._summary = None
        beyond, self._denials = self._denials - DENIALS_PER_SECOND, 0
        if beyond > 0:
            self.record(DENIED, actor="anonymous", outcome="several", details={"repeated": beyond})

    def _keep(self, entry: dict[str, Any]) -> None:
        (self._denied if entry.get("event") == DENIED else self._done).append(entry)
