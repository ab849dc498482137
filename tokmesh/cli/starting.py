"""What the server of this host waits for: it answers its probes from the first moment, and everything else when it serves."""

from pathlib import Path

from tokmesh.cli.local import call
from tokmesh.errors import ApiError


def waits_for(directory: Path) -> dict[str, str] | None:
    """Why it is not ready, by check; none: it is. None: no server answers. Raises ApiError when it is not this user's to ask."""
    try:
        call(directory, "GET", "/ready?verbose")
    except ApiError as error:
        if error.code != "TM-SYS-5030":
            raise
        reasons = (error.details or {}).get("reasons")
        return {str(name): str(reason) for name, reason in reasons.items()} if isinstance(reasons, dict) else None
    return {}
