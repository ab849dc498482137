"""Handlers of /users: what concerns all sessions of one user."""

from typing import Final

from tokmesh.api.answer import Reply, Request
from tokmesh.api.body import BodySpec
from tokmesh.api.fields import session_id_of
from tokmesh.api.query import NO_QUERY
from tokmesh.api.sessions import answer_of
from tokmesh.sessions import SessionOperations

_REVOKE: Final = BodySpec(optional={"except_session_id": str, "sync": bool})


class UserHandlers:
    """The routes of one user."""

    def __init__(self, sessions: SessionOperations) -> None:
        self._sessions = sessions

    async def revoke_sessions(self, request: Request) -> Reply:
        """POST /users/{user_id}/sessions/revoke: every live session of the user, but one where that is asked for."""
        NO_QUERY.parse(request)
        fields = _REVOKE.parse(request.body)
        kept = fields.get("except_session_id")
        except_id = None if kept is None else session_id_of(kept, "except_session_id")
        return answer_of(await self._sessions.revoke_user(request.params[0], except_id, fields.get("sync", False)))
