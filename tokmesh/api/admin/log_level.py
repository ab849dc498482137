"""`/admin/v1/log-level`: what is logged at run time, for a while or until the next change."""

from typing import Any, Final

from tokmesh.api.answer import Reply, Request
from tokmesh.api.body import BodySpec
from tokmesh.api.query import NO_QUERY
from tokmesh.errors import ApiError
from tokmesh.telemetry.logs.level import LevelState, LogLevel
from tokmesh.telemetry.logs.levels import LEVELS

REVERT_AFTER_S_MAX: Final = 86_400

_SET: Final = BodySpec(required={"level": str}, optional={"revert_after_seconds": int})


class LogLevelHandlers:
    """The routes of the log level."""

    def __init__(self, log_level: LogLevel) -> None:
        self._log_level = log_level

    async def get(self, request: Request) -> Reply:
        """GET /admin/v1/log-level."""
        NO_QUERY.parse(request)
        return _shown(self._log_level.state)

    async def set(self, request: Request) -> Reply:
        """POST /admin/v1/log-level: replaces an earlier one and its time. Raises TM-ARG-1001."""
        NO_QUERY.parse(request)
        fields = _SET.parse(request.body)
        revert_after_s = fields.get("revert_after_seconds")
        if fields["level"].upper() not in LEVELS:
            raise ApiError("TM-ARG-1001", {"field": "level", "allowed": [name.lower() for name in LEVELS]})
        if revert_after_s is not None and not 1 <= revert_after_s <= REVERT_AFTER_S_MAX:
            raise ApiError("TM-ARG-1001", {"field": "revert_after_seconds", "minimum": 1, "maximum": REVERT_AFTER_S_MAX})
        return _shown(self._log_level.override(fields["level"], revert_after_s))


def _shown(state: LevelState) -> dict[str, Any]:
    return {"level": state.level, "configured": state.configured, "reverts_at": state.reverts_at_ms}
