"""Wraps a handler so that what was asked for, by whom and with what outcome, stands in the audit trail.

The entry is made when the outcome is known: also a refusal is one. A handler says nothing of audit itself.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from tokmesh.api.answer import Handler, Reply, Request
from tokmesh.errors import ApiError
from tokmesh.telemetry.logs.audit import OK, AuditTrail

Facts = Callable[[Request, dict[str, Any]], Mapping[str, object]]


def actor_of(request: Request) -> str:
    """The key id of the caller; "local" on the administration socket, "anonymous" for nobody known."""
    if request.api_key is not None:
        return request.api_key.key_id
    return "local" if request.is_local else "anonymous"


def _no_facts(request: Request, data: dict[str, Any]) -> Mapping[str, object]:
    return {}


class Audited:
    """Makes audited handlers that tell `trail`."""

    def __init__(self, trail: AuditTrail) -> None:
        self._trail = trail

    def __call__(self, event: str, handler: Handler, *, target: str = "", facts: Facts = _no_facts) -> Handler:
        """target: the field of the answer that names what was changed; without one it is the path's first parameter.

        facts: further details, from the request and the answer's data; no secret may be among them.
        """

        async def audited(request: Request) -> Reply:
            named = request.params[0] if request.params else ""
            try:
                reply = await handler(request)
            except (Exception, asyncio.CancelledError) as error:
                outcome = error.code if isinstance(error, ApiError) else "TM-SYS-5000"
                self._tell(event, request, named, outcome, {})
                raise
            data = reply if isinstance(reply, dict) else {}
            self._tell(event, request, str(data[target]) if target else named, OK, facts(request, data))
            return reply

        return audited

    def _tell(self, event: str, request: Request, target: str, outcome: str, details: Mapping[str, object]) -> None:
        self._trail.record(
            event,
            actor=actor_of(request),
            request_id=request.request_id,
            address=request.peer_ip,
            target=target,
            outcome=outcome,
            details=details,
        )
