"""`/health` and `/ready`: is the process alive, and can it serve.

Health looks at nothing: a process that answers is alive, whatever its disk does. Readiness asks named checks, in the
order they were added. Names are public; reasons are for administrators, as they may tell paths and states.
"""

from collections.abc import Callable
from typing import Final

from tokmesh.api.answer import Reply, Request, is_admin, nameable
from tokmesh.api.query import NO_QUERY
from tokmesh.errors import ApiError

_VERBOSE_VALUES: Final = {"": True, "true": True, "1": True, "false": False, "0": False}

Check = Callable[[], str | None]


class Readiness:
    """Named checks; each says why it fails, or None. A check must be cheap: it runs on the serving loop."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}

    def add(self, name: str, check: Check) -> None:
        """Adds a check under a name that is not in use."""
        assert name not in self._checks, name
        self._checks[name] = check

    def checks(self) -> dict[str, str | None]:
        """Every check by name: None where it holds, else why not."""
        return {name: check() for name, check in self._checks.items()}

    def failures(self) -> dict[str, str]:
        """The failing checks and their reasons; empty: ready."""
        return {name: reason for name, reason in self.checks().items() if reason is not None}


class ProbeHandlers:
    """The two probes."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    async def health(self, request: Request) -> Reply:
        """GET /health."""
        NO_QUERY.parse(request)
        return {"status": "ok"}

    async def ready(self, request: Request) -> Reply:
        """GET /ready. Raises TM-SYS-5030 with the names of failing checks; `?verbose` adds reasons for admins."""
        verbose = False
        for name, text in request.query_args().items():
            if name != "verbose":
                raise ApiError("TM-ARG-1001", {"reason": "unknown_parameter", **nameable(name)})
            if text not in _VERBOSE_VALUES:
                raise ApiError("TM-ARG-1001", {"field": name, "expected": "true or false"})
            verbose = _VERBOSE_VALUES[text]
        failures = self._readiness.failures()
        if not failures:
            return {"status": "ready"}
        details: dict[str, object] = {"failed": list(failures)}
        if verbose and is_admin(request):
            details["reasons"] = failures
        raise ApiError("TM-SYS-5030", details)
