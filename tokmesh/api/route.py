"""One row of the table of routes."""

from dataclasses import dataclass

from tokmesh.api.answer import Answer, Handler


@dataclass(frozen=True, slots=True)
class Route:
    """role: "none", "metrics", "validator", "issuer" or "admin"; template: segments of "/a/{placeholder}/b".

    sign_in: what a caller that accepts HTML gets instead of the envelope when its key is missing or no good (401).
    """

    method: str
    template: str
    role: str
    handler: Handler
    sign_in: Answer | None = None
