"""One row of the table of routes."""

from dataclasses import dataclass

from tokmesh.api.answer import Handler


@dataclass(frozen=True, slots=True)
class Route:
    """role: "none", "metrics", "validator", "issuer" or "admin"; template: segments of "/a/{placeholder}/b"."""

    method: str
    template: str
    role: str
    handler: Handler
