"""One HTTP request to the server of this host, over the Unix socket in its data directory."""

import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any, Final

from tokmesh.errors import ERRORS, ApiError
from tokmesh.host.data_directory import ADMIN_SOCKET_NAME

TIMEOUT_S: Final = 30.0
ANSWER_BYTES_MAX: Final = 64 << 20


class _LocalConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket. The path goes through /proc/self/fd, so its length has no limit of 108 bytes."""

    def __init__(self, directory: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._directory = directory

    def connect(self) -> None:
        """Connects; raises OSError."""
        folder = os.open(self._directory, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(TIMEOUT_S)
            self.sock.connect(f"/proc/self/fd/{folder}/{ADMIN_SOCKET_NAME}")
        finally:
            os.close(folder)


def call(directory: Path, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """The `data` of the answer. Raises ApiError: the server's own code, or TM-SYS-5030 when no server answers."""
    connection = _LocalConnection(directory)
    try:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = json.loads(connection.getresponse().read(ANSWER_BYTES_MAX))
    except PermissionError:
        reason = f"the socket in {directory} belongs to another user"
        raise ApiError("TM-ADMIN-4031", {"reason": reason}) from None
    except (OSError, http.client.HTTPException, ValueError):
        reason = f"no server answers on {directory / ADMIN_SOCKET_NAME}; is it running, and is this its storage.dir?"
        raise ApiError("TM-SYS-5030", {"reason": reason}) from None
    finally:
        connection.close()
    if answer.get("code") == "OK":
        return answer["data"]
    code = answer.get("code")
    raise ApiError(code if code in ERRORS else "TM-SYS-5000", answer.get("details"))
