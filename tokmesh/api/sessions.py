"""Handlers of /sessions: read the request, ask the domain, shape the answer.

Rules of a session (lengths, ranges, quota, versions) are the domain's and come back as its errors.
"""

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final

from tokmesh._core.principal import Role
from tokmesh.api.answer import Reply, Request
from tokmesh.api.body import BodySpec
from tokmesh.api.fields import checked_fields, key_id_of, project, session_id_of
from tokmesh.api.query import NO_QUERY, QuerySpec, split_names
from tokmesh.errors import ApiError
from tokmesh.sessions import Revoked, SessionFilter, SessionOperations

PAGE_SIZE_DEFAULT: Final = 20
PAGE_SIZE_MAX: Final = 100
SORT_ORDERS: Final = ("asc", "desc")

_CREATE: Final = BodySpec(
    required={"user_id": str},
    optional={
        "device_id": str,
        "ip_address": str,
        "user_agent": str,
        "ttl_seconds": int,
        "idle_seconds": int,
        "data": dict,
        "token": str,
    },
)
_TOUCH: Final = BodySpec(optional={"ip_address": str, "user_agent": str, "fields": list})
_RENEW: Final = BodySpec(required={"ttl_seconds": int})
_UPDATE: Final = BodySpec(required={"data": dict}, optional={"if_version": int})
_REVOKE: Final = BodySpec(optional={"sync": bool})
_LIST: Final = QuerySpec(
    {
        "user_id": str,
        "device_id": str,
        "key_id": str,
        "ip_address": str,
        "time_range_start": int,
        "time_range_end": int,
        "active_after": int,
        "sort_by": str,
        "sort_order": str,
        "fields": str,
        "page": int,
        "size": int,
        "cursor": str,
    }
)


def created_by(request: Request) -> str:
    """The key id a new session is attributed to; "" on the local socket, where nobody presents a key."""
    return "" if request.api_key is None else request.api_key.key_id


class SessionHandlers:
    """The routes of one session and of the list of them."""

    def __init__(self, sessions: SessionOperations) -> None:
        self._sessions = sessions

    async def create(self, request: Request) -> Reply:
        """POST /sessions. The token is in this answer and nowhere else, ever."""
        NO_QUERY.parse(request)
        fields = _CREATE.parse(request.body)
        # Not `**fields`: to match parameters with names that the parser made costs 5,000 instructions.
        given = fields.get
        created = await self._sessions.create(
            fields["user_id"], given("device_id", ""), given("ip_address", ""), given("user_agent", ""), given("ttl_seconds"),
            given("idle_seconds"), given("data"), given("token"), created_by=created_by(request),
        )  # fmt: skip
        return {"session_id": created.session_id, "token": created.token, "expires_at": created.expires_at}

    async def get(self, request: Request) -> Reply:
        """GET /sessions/{session_id}."""
        NO_QUERY.parse(request)
        return {"session": project(await self._sessions.get(session_id_of(request.params[0])), None)}

    async def touch(self, request: Request) -> Reply:
        """POST /sessions/{session_id}/touch: moves `last_active` forward, never back; answers `fields` or all."""
        NO_QUERY.parse(request)
        fields = _TOUCH.parse(request.body)
        chosen = checked_fields(fields["fields"]) if "fields" in fields else None
        session_id = session_id_of(request.params[0])
        touched = await self._sessions.touch(session_id, fields.get("ip_address"), fields.get("user_agent"))
        return {"session": project(touched, chosen)}

    async def renew(self, request: Request) -> Reply:
        """POST /sessions/{session_id}/renew: a new life of `ttl_seconds` from now."""
        NO_QUERY.parse(request)
        fields = _RENEW.parse(request.body)
        expires_at_ms = await self._sessions.renew(session_id_of(request.params[0]), fields["ttl_seconds"])
        return {"new_expires_at": expires_at_ms}

    async def update(self, request: Request) -> Reply:
        """POST /sessions/{session_id}/update: replaces `data`, if the version is `if_version`, where given."""
        NO_QUERY.parse(request)
        fields = _UPDATE.parse(request.body)
        session_id = session_id_of(request.params[0])
        return {"version": await self._sessions.update(session_id, fields["data"], fields.get("if_version"))}

    async def revoke(self, request: Request) -> Reply:
        """POST /sessions/{session_id}/revoke: 1 revoked by this request, or 0: it was revoked before.

        `sync` asks to wait until no node of the cluster can say yes any more, and to be told of the nodes; a node alone is all.
        """
        NO_QUERY.parse(request)
        fields = _REVOKE.parse(request.body)
        return answer_of(await self._sessions.revoke(session_id_of(request.params[0]), fields.get("sync", False)))

    async def list(self, request: Request) -> Reply:
        """GET /sessions: live sessions that pass every filter, a page at a time."""
        query = _LIST.parse(request)
        api_key = request.api_key
        if "user_id" not in query and api_key is not None and api_key.role != Role.ROLE_ADMIN:
            raise ApiError("TM-AUTH-4030", {"reason": "user_id_required"})
        chosen = checked_fields(split_names("fields", query["fields"])) if "fields" in query else None
        page = await self._sessions.list(_session_filter(query))
        return {
            "items": [project(each, chosen) for each in page.items],
            "total_items": page.total_items,
            "next_cursor": page.next_cursor,
        }


def answer_of(revoked: Revoked) -> dict[str, Any]:
    """How many, and what a `sync` revocation adds when it is everywhere: nodes that have it, nodes that answer nothing without it,
    milliseconds. Nothing without `sync`, nor on a node alone."""
    answer: dict[str, Any] = {"revoked_count": revoked.ended}
    reached = revoked.reached
    if reached is not None:
        answer.update(nodes_reached=reached.applied, nodes_fenced=reached.fenced, spread_ms=reached.took_ms)
    return answer


def page_of(query: dict[str, Any]) -> tuple[int, int]:
    """Page number (from 1; 1 with a cursor) and page size of a list. Raises TM-ARG-1001, TM-ARG-1003."""
    page, size = query.get("page", 1), query.get("size", PAGE_SIZE_DEFAULT)
    if page < 1:
        raise ApiError("TM-ARG-1001", {"field": "page", "minimum": 1})
    if not 1 <= size <= PAGE_SIZE_MAX:
        raise ApiError("TM-ARG-1001", {"field": "size", "minimum": 1, "maximum": PAGE_SIZE_MAX})
    if "cursor" in query and "page" in query:
        raise ApiError("TM-ARG-1003", {"fields": ["cursor", "page"]})
    return page, size


def _session_filter(query: dict[str, Any]) -> SessionFilter:
    """Query parameters → filter; orders and field rules are the domain's. Raises TM-ARG-1001, TM-ARG-1003."""
    page, size = page_of(query)
    start_ms, end_ms = query.get("time_range_start"), query.get("time_range_end")
    if start_ms is not None and end_ms is not None and start_ms > end_ms:
        raise ApiError("TM-ARG-1003", {"fields": ["time_range_start", "time_range_end"]})
    sort_order = query.get("sort_order", "desc")
    if sort_order not in SORT_ORDERS:
        raise ApiError("TM-ARG-1001", {"field": "sort_order", "allowed": list(SORT_ORDERS)})
    return SessionFilter(
        user_id=query.get("user_id"),
        device_id=query.get("device_id"),
        key_id=key_id_of(query["key_id"]) if "key_id" in query else None,
        ip_network=_network_of(query["ip_address"]) if "ip_address" in query else None,
        time_range_start_ms=start_ms,
        time_range_end_ms=end_ms,
        active_after_ms=query.get("active_after"),
        sort_by=query.get("sort_by", "created_at"),
        descending=sort_order == "desc",
        page=page,
        size=size,
        cursor=query.get("cursor"),
    )


def _network_of(text: str) -> IPv4Network | IPv6Network:
    """An address or a CIDR block; host bits may be set ("10.1.2.3/8" is 10.0.0.0/8). Raises TM-ARG-1001."""
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise ApiError("TM-ARG-1001", {"field": "ip_address", "expected": "address or CIDR"}) from None
