"""`/admin/v1/config`: what is in force and where it came from, whether another configuration is good, and a reload."""

from typing import Any

from tokmesh.api.answer import Reply, Request
from tokmesh.api.body import BodySpec
from tokmesh.api.query import NO_QUERY
from tokmesh.config import LiveConfig, Outcome

_RELOAD = BodySpec()


class ConfigHandlers:
    """The routes of the configuration."""

    def __init__(self, config: LiveConfig) -> None:
        self._config = config

    async def get(self, request: Request) -> Reply:
        """GET /admin/v1/config."""
        NO_QUERY.parse(request)
        config = self._config
        settings = {
            each.name: {"value": each.value, "default": each.default, "source": each.source, "reloadable": each.reloadable}
            for each in config.shown()
        }
        file = None if config.config_file is None else str(config.config_file)
        return {"config_file": file, "settings": settings, "needs_restart": config.needs_restart}

    async def validate(self, request: Request) -> Reply:
        """POST /admin/v1/config/validate: the body is the text of a configuration file, YAML or JSON; nothing changes."""
        NO_QUERY.parse(request)
        outcome = await self._config.validate(request.body)
        return {"valid": not outcome.problems, **_shown(outcome)}

    async def reload(self, request: Request) -> Reply:
        """POST /admin/v1/config/reload: what SIGHUP does."""
        NO_QUERY.parse(request)
        _RELOAD.parse(request.body)
        return _shown(await self._config.reload())


def _shown(outcome: Outcome) -> dict[str, Any]:
    return {
        "applied": outcome.applied,
        "needs_restart": outcome.needs_restart,
        "problems": [
            {"code": each.code, "key": _sendable(each.name), "source": each.source, "rule": _sendable(each.rule)}
            for each in outcome.problems
        ],
    }


def _sendable(text: str) -> str:
    """With escapes in the place of what YAML can name and UTF-8 cannot say: lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()
