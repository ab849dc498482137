"""What a handler is given and what it gives back.

A handler is `async def handler(request) -> Reply`. The wire path drives it without a Task, so it awaits futures and
other coroutines only. A dict, a list or bytes (JSON that is ready to send; `orjson.Fragment` inside the other two)
becomes `data` of the success envelope (contract §3); an `Answer` leaves as it is. A refusal is a raised `ApiError`;
anything else raised is our bug and answers TM-SYS-5000.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from tokmesh._core.principal import ApiKey, Role


class Request(Protocol):
    """A complete request whose route, credential and role have been checked.

    params: the values of the template's placeholders in order, percent-decoded once.
    api_key: the key whose credential was presented and is good; None on routes without a role and on the local socket.
    is_local: the request came over the Unix socket of the data directory, whose peer is an administrator.
    """

    @property
    def params(self) -> tuple[str, ...]: ...
    @property
    def body(self) -> bytes: ...
    @property
    def request_id(self) -> str: ...
    @property
    def api_key(self) -> ApiKey | None: ...
    @property
    def peer_ip(self) -> str: ...
    @property
    def is_local(self) -> bool: ...
    def query_args(self) -> dict[str, str]: ...
    def header(self, name: str) -> str | None: ...


class Answer:
    """A finished answer that gets no envelope. headers: further ones, as (name, value) pairs."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(self, status: int, content_type: str, body: bytes, headers: Sequence[tuple[str, str]] = ()) -> None:
        self.status = status
        self.content_type = content_type
        self.body = body
        self.headers = tuple(headers)


Reply = dict[str, Any] | list[Any] | bytes | Answer
Handler = Callable[[Request], Awaitable[Reply]]


def is_admin(request: Request) -> bool:
    """Whether the caller may see what only administrators see: an admin key, or the local socket."""
    api_key = request.api_key
    return request.is_local if api_key is None else api_key.role == Role.ROLE_ADMIN


def nameable(name: str) -> dict[str, str]:
    """The details entry for a field name that came from outside: {} unless it is short and plain, so that nothing
    secret that was sent in the place of a name comes back (a token or a key secret has 48 characters).
    """
    return {"field": name} if len(name) <= 32 and name.isascii() and name.isidentifier() else {}
