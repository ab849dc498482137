"""Handlers of /admin/v1/keys: make an API key, list them, switch one on or off.

A key's secret is in the answer to its creation and nowhere else, ever. Rules of a key (roles, lengths, networks) are
the domain's.
"""

from typing import Any, Final

from tokmesh.api.answer import Reply, Request
from tokmesh.api.body import BodySpec
from tokmesh.api.fields import key_id_of
from tokmesh.api.query import NO_QUERY, QuerySpec
from tokmesh.api.sessions import page_of
from tokmesh.errors import ApiError
from tokmesh.keyring import StoredKey
from tokmesh.keys import Keys
from tokmesh.telemetry.logs.redaction import redact

SECRET_WARNING: Final = "Store key_secret now: it is not kept and cannot be shown again."
STATUSES: Final = {"active": True, "disabled": False}

_CREATE: Final = BodySpec(
    required={"role": str},
    optional={"description": str, "allowedlist": list, "rate_limit": int, "expires_at": int},
)
_STATUS: Final = BodySpec(required={"status": str})
_LIST: Final = QuerySpec({"page": int, "size": int, "cursor": str})


class KeyHandlers:
    """The routes of API keys."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def create(self, request: Request) -> Reply:
        """POST /admin/v1/keys."""
        NO_QUERY.parse(request)
        created = await self._keys.create(**_CREATE.parse(request.body))
        return {"key_id": created.key_id, "key_secret": created.key_secret, "warning": SECRET_WARNING}

    async def list(self, request: Request) -> Reply:
        """GET /admin/v1/keys: oldest first, a page at a time; the cursor is the id of the last key shown."""
        query = _LIST.parse(request)
        page, size = page_of(query)
        keys = self._keys.list()
        first = (page - 1) * size
        if "cursor" in query:
            last_id = key_id_of(query["cursor"], "cursor")
            first = next((position + 1 for position, key in enumerate(keys) if key.key_id16 == last_id), len(keys))
        shown = keys[first : first + size]
        return {
            "items": [_shown(key) for key in shown],
            "total_items": len(keys),
            "next_cursor": shown[-1].api_key.key_id if shown and first + size < len(keys) else None,
        }

    async def set_status(self, request: Request) -> Reply:
        """POST /admin/v1/keys/{key_id}/status. Raises TM-ADMIN-4041 for a key that is not there."""
        NO_QUERY.parse(request)
        status = _STATUS.parse(request.body)["status"]
        if status not in STATUSES:
            raise ApiError("TM-ARG-1001", {"field": "status", "allowed": list(STATUSES)})
        await self._keys.set_status(key_id_of(request.params[0]), STATUSES[status])
        return {"key_id": request.params[0].lower(), "status": status}


def _shown(key: StoredKey) -> dict[str, Any]:
    """What a list says of a key: everything but its verifier. `rate_limit` 0: none; `expires_at` null: never."""
    api_key = key.api_key
    rate_limit = api_key.rate_per_second
    return {
        "key_id": api_key.key_id,
        "role": api_key.role_name,
        "description": redact(key.description),
        "allowedlist": list(key.allowedlist),
        "rate_limit": int(rate_limit) if rate_limit.is_integer() else rate_limit,
        "created_at": key.created_at_ms,
        "expires_at": api_key.expires_at_ms or None,
        "status": "active" if api_key.active else "disabled",
    }
