"""One HTTP request to the server of this host, over the Unix socket in its data directory; a file may be its body or its answer."""

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tokmesh.errors import ERRORS, ApiError
from tokmesh.host.data_directory import ADMIN_SOCKET_NAME

TIMEOUT_S: Final = 30.0
ANSWER_BYTES_MAX: Final = 64 << 20
PIECE_BYTES: Final = 256 << 10

Tell = Callable[[int, int], None]  # how much is done, and of how much


class _LocalConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket. The path goes through /proc/self/fd, so its length has no limit of 108 bytes."""

    def __init__(self, directory: Path, timeout_s: float | None = TIMEOUT_S) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._directory = directory

    def connect(self) -> None:
        """Connects; raises OSError."""
        folder = os.open(self._directory, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{folder}/{ADMIN_SOCKET_NAME}")
        finally:
            os.close(folder)


def call(
    directory: Path, method: str, path: str, body: dict[str, Any] | None = None, *, timeout_s: float | None = TIMEOUT_S
) -> Any:
    """The `data` of the answer. timeout_s: None for what may take long. Raises ApiError: the server's own code, or TM-SYS-5030
    when no server answers."""
    with _connected(directory, timeout_s) as connection:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        return _data(connection.getresponse().read(ANSWER_BYTES_MAX))


def download(directory: Path, path: str, target: Path, tell: Tell) -> None:
    """Writes the body of an answer to a new file, which is there whole or not at all. ApiError as of `call`, and TM-CFG-1004."""
    with _connected(directory, None) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != 200:
            _data(answer.read(ANSWER_BYTES_MAX))
            raise ApiError("TM-SYS-5000")
        total = int(answer.headers["Content-Length"])
        unfinished = target.with_name(f"{target.name}.{os.getpid()}.unfinished")  # not that of another download to the same file
        try:
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                while piece := answer.read(PIECE_BYTES):
                    file.write(piece)
                    tell(file.tell(), total)
                complete = file.tell() == total
                os.fsync(file.fileno())
            if not complete:
                raise http.client.IncompleteRead(b"")
            os.link(unfinished, target)  # unlike a rename, it replaces nothing
        except OSError as error:
            raise ApiError("TM-CFG-1004", {"file": str(target), "reason": error.strerror or "cannot be written"}) from error
        finally:
            unfinished.unlink(missing_ok=True)


def upload(directory: Path, path: str, source: Path, tell: Tell) -> Any:
    """Sends a file as the body of a POST; the `data` of the answer. Raises ApiError as `call`, and TM-CFG-1004."""
    try:
        file = source.open("rb")
    except OSError as error:
        raise ApiError("TM-CFG-1004", {"file": str(source), "reason": error.strerror or "cannot be read"}) from error
    with file, _connected(directory, None) as connection:
        total = os.fstat(file.fileno()).st_size

        def pieces() -> Iterator[bytes]:
            while piece := file.read(PIECE_BYTES):
                yield piece
                tell(file.tell(), total)

        connection.request("POST", path, pieces(), {"Content-Length": str(total)})
        return _data(connection.getresponse().read(ANSWER_BYTES_MAX))


def path_segment(text: str, field: str, rule: str) -> str:
    """An id as one segment of a path. Raises TM-ARG-1001 for what cannot be one, before it travels: `field` `rule`."""
    if not (text.isascii() and text.replace("-", "").isalnum() and len(text) <= 64):
        raise ApiError("TM-ARG-1001", {field: rule})
    return text


@contextlib.contextmanager
def _connected(directory: Path, timeout_s: float | None) -> Iterator[_LocalConnection]:
    """A connection; what goes wrong on it is an ApiError."""
    connection = _LocalConnection(directory, timeout_s)
    try:
        yield connection
    except PermissionError:
        reason = f"the socket in {directory} belongs to another user"
        raise ApiError("TM-ADMIN-4031", {"reason": reason}) from None
    except (OSError, http.client.HTTPException, ValueError):
        reason = f"no server answers on {directory / ADMIN_SOCKET_NAME}; is it running, and is this its storage.dir?"
        raise ApiError("TM-SYS-5030", {"reason": reason}) from None
    finally:
        connection.close()


def _data(body: bytes) -> Any:
    """What an envelope holds. ValueError, and ApiError with the server's own code."""
    answer = json.loads(body)
    code = answer.get("code")
    if code == "OK":
        return answer["data"]
    raise ApiError(code if code in ERRORS else "TM-SYS-5000", answer.get("details"))
