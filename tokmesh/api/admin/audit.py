"""`/admin/v1/audit/logs`: the audit trail, newest first, a page at a time. What an entry is: telemetry/logs/audit.py."""

from typing import Final

from tokmesh.api.answer import Reply, Request
from tokmesh.api.query import QuerySpec, parse_integer
from tokmesh.api.sessions import page_of
from tokmesh.telemetry.logs.audit import AuditTrail

_LIST: Final = QuerySpec({"event": str, "page": int, "size": int, "cursor": str})


class AuditHandlers:
    """The route of the audit trail."""

    def __init__(self, trail: AuditTrail) -> None:
        self._trail = trail

    async def list(self, request: Request) -> Reply:
        """GET /admin/v1/audit/logs: the cursor is the id of the last entry shown; `event` keeps those of one kind."""
        query = _LIST.parse(request)
        page, size = page_of(query)
        entries = self._trail.recent()
        if "event" in query:
            entries = [entry for entry in entries if entry["event"] == query["event"]]
        first = (page - 1) * size
        if "cursor" in query:
            last_id = parse_integer("cursor", query["cursor"])
            first = next((position for position, entry in enumerate(entries) if entry["id"] < last_id), len(entries))
        shown = entries[first : first + size]
        return {
            "items": shown,
            "total_items": len(entries),
            "next_cursor": str(shown[-1]["id"]) if shown and first + size < len(entries) else None,
        }
