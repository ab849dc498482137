"""What a handler is given and what it gives back.

A handler is `async def handler(request) -> Reply`. The wire path drives it without a Task, so it awaits futures and
other coroutines only. A dict, a list or bytes (JSON that is ready to send; `orjson.Fragment` inside the other two)
becomes `data` of the success envelope (docs/api.md, "Answers"); an `Answer` leaves as it is, and a `FileAnswer` in pieces. A
refusal is a raised `ApiError`; anything else raised is our bug and answers TM-SYS-5000.
"""

import asyncio
import io
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from tokmesh._core.principal import ApiKey, Role


class Request(Protocol):
    """A complete request whose route, credential and role have been checked.

    params: the values of the template's placeholders in order, percent-decoded once.
    api_key: the key whose credential was presented and is good; None on routes without a role and on the local socket.
    body_file: the file that has the body, on a route that spools (api.spool); `body` is then empty.
    is_local: the request came over the Unix socket of the data directory, whose peer is an administrator.
    """

    @property
    def params(self) -> tuple[str, ...]: ...
    @property
    def body(self) -> bytes: ...
    @property
    def body_file(self) -> Path | None: ...
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


class Sink(Protocol):
    """The connection, for an answer that leaves in pieces. piece_bytes_max: of one piece.

    writable: done when the next piece may be read, which may then be written; ConnectionResetError: the peer has gone.
    """

    @property
    def piece_bytes_max(self) -> int: ...
    def writable(self) -> "asyncio.Future[None]": ...
    def write_piece(self, piece: bytes) -> None: ...


class FileShrankError(Exception):
    """A file has become shorter than its answer's head says."""


class FileAnswer:
    """A file as a 200 answer, of the size that it has when it is opened; it leaves in pieces, read in threads of the loop's pool.

    A handler opens it, and says what is to be said when that fails: `return await FileAnswer.open(path, content_type)`. It is
    closed when it has left, or cannot. A file that shrinks meanwhile cuts the connection, so that its peer takes nothing for the
    whole.
    """

    __slots__ = ("_file", "content_type", "headers", "size", "status")

    def __init__(self, file: io.FileIO, size: int, content_type: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        self.status = 200
        self.content_type = content_type
        self.headers = tuple(headers)
        self.size = size
        self._file = file

    @classmethod
    async def open(cls, file: Path | int, content_type: str, headers: Sequence[tuple[str, str]] = ()) -> "FileAnswer":
        """file: a path, or the descriptor of a regular file, which is the answer's from now on. Raises OSError."""
        opened, size = await asyncio.get_running_loop().run_in_executor(None, _open, file)
        return cls(opened, size, content_type, headers)

    async def send(self, sink: Sink) -> None:
        """Called by the connection, once. Raises OSError, also of the connection, and FileShrankError."""
        loop = asyncio.get_running_loop()
        left_bytes = self.size
        try:
            while left_bytes:
                await sink.writable()
                piece = await loop.run_in_executor(None, self._file.read, min(left_bytes, sink.piece_bytes_max))
                if not piece:
                    raise FileShrankError(f"{left_bytes} of {self.size} bytes are missing")
                left_bytes -= len(piece)
                sink.write_piece(piece)
        finally:
            loop.run_in_executor(None, self._file.close)  # the last of a large file that was removed takes time


def _open(file: Path | int) -> tuple[io.FileIO, int]:
    opened = io.FileIO(file, "rb")
    opened.seek(0)
    return opened, os.fstat(opened.fileno()).st_size


Reply = dict[str, Any] | list[Any] | bytes | Answer | FileAnswer
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
