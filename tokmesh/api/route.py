"""One row of the table of routes."""

from dataclasses import dataclass

from tokmesh.api.answer import Answer, Handler
from tokmesh.api.spool import SpoolSpec


@dataclass(frozen=True, slots=True)
class Route:
    """role: "none", "metrics", "validator", "issuer" or "admin"; template: segments of "/a/{placeholder}/b".

    sign_in: what a caller that accepts HTML gets instead of the envelope when its key is missing or no good (401).
    spool: where the bodies of its requests go instead of memory, with a limit of their own in place of `server.http.max_body_size`.
    """

    method: str
    template: str
    role: str
    handler: Handler
    sign_in: Answer | None = None
    spool: SpoolSpec | None = None
