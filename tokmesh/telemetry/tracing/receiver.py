"""The OTLP/HTTP receiver as seen from here: one POST at a time on one connection, and what its answer means.

Whatever it does (refuse connections, accept and never answer, answer slowly, garbage or at length), `post` comes back within
its time with an Outcome and holds no more than ANSWER_BYTES_MAX of it. `cut`, from another thread, ends a POST under way.
Proxies of the environment are not used, redirects not followed.
"""

import contextlib
import http.client
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

ANSWER_BYTES_MAX: Final = 64 << 10
RETRY_AFTER_S_MAX: Final = 300.0
DEFAULT_PATH: Final = "/v1/traces"  # of an endpoint given without one (OTLP 1.x, "OTLP/HTTP request")
# Statuses after which the same request may be sent again (OTLP 1.x, "Failures").
_BUSY: Final = frozenset(
    (
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    )
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a POST.

    failure: "" or one of figures.FAILURE_REASONS. may_retry: the same request may be sent again, after `retry_after_s` where
    the receiver said so. rejected: spans it did not want of a request it took. detail: for an operator, no content of ours.
    """

    failure: str = ""
    may_retry: bool = False
    retry_after_s: float | None = None
    rejected: int = 0
    detail: str = ""


class Receiver:
    """endpoint: an http or https URL. headers: sent with every request. timeout_s: of a whole POST. rejected_spans: bytes of an
    answer → spans rejected, ValueError for what is no answer. wall_s: seconds of Unix time, for Retry-After as a date."""

    def __init__(
        self,
        endpoint: str,
        headers: Mapping[str, str],
        timeout_s: float,
        rejected_spans: Callable[[bytes], int],
        *,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        parts = urlsplit(endpoint)
        assert parts.hostname is not None and parts.scheme in ("http", "https"), "the configuration has checked it"
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._path = parts.path if parts.path not in ("", "/") else DEFAULT_PATH
        self._headers = {**headers, "Content-Type": "application/x-protobuf"}
        self._timeout_s = timeout_s
        self._rejected_spans = rejected_spans
        self._wall_s = wall_s
        self._connection: http.client.HTTPConnection | None = None
        self._is_cut = False

    def post(self, content: bytes) -> Outcome:
        """Sends one request. Never raises for what the other side does."""
        late = threading.Event()
        watch = threading.Timer(self._timeout_s, self._end_socket, (late,))
        watch.daemon = True
        watch.start()
        try:
            outcome = self._exchange(content)
            if late.is_set() or self._is_cut:  # an answer that ends where it was cut looks whole to http.client
                raise TimeoutError
            return outcome
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            failure = "timeout" if late.is_set() or isinstance(error, TimeoutError) else "connection"
            return Outcome(failure, may_retry=True, detail=type(error).__name__)
        finally:
            watch.cancel()

    def cut(self) -> None:
        """Ends the POST under way, if any, and lets no other begin. From any thread."""
        self._is_cut = True
        self._end_socket(threading.Event())

    def close(self) -> None:
        """Closes the connection; the next POST makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _exchange(self, content: bytes) -> Outcome:
        is_kept = self._connection is not None
        try:
            return self._attempt(content)
        except ConnectionError:
            # A connection kept from the POST before may have been closed meanwhile; that says nothing of the receiver.
            if not is_kept or self._is_cut:
                raise
            self.close()
            return self._attempt(content)

    def _attempt(self, content: bytes) -> Outcome:
        connection = self._connection
        if self._is_cut:
            raise ConnectionAbortedError
        if connection is None:
            if self._tls is None:
                connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
            else:
                connection = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=self._tls)
            self._connection = connection
        connection.request("POST", self._path, content, self._headers)
        response = connection.getresponse()
        answer = response.read(ANSWER_BYTES_MAX + 1)
        if not response.isclosed():
            self.close()
        return self._judge(response.status, response.getheader("Retry-After"), answer)

    def _judge(self, status: int, retry_after: str | None, answer: bytes) -> Outcome:
        detail = f"status {status}"
        if status in _BUSY:
            return Outcome("busy", may_retry=True, retry_after_s=self._retry_after_s(retry_after), detail=detail)
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return Outcome("status", detail=detail)
        try:
            if len(answer) > ANSWER_BYTES_MAX:
                raise ValueError("larger than any OTLP answer")
            return Outcome(rejected=self._rejected_spans(answer))
        except ValueError:
            return Outcome("answer", detail="an answer that is not OTLP")

    def _retry_after_s(self, field: str | None) -> float | None:
        """Seconds to wait, at most RETRY_AFTER_S_MAX; None for a field that is absent or means nothing."""
        if field is None:
            return None
        try:
            is_number = field.isascii() and field.strip().isdigit()
            wait_s = float(field) if is_number else parsedate_to_datetime(field).timestamp() - self._wall_s()
        except (ValueError, TypeError, OverflowError):
            return None
        return min(max(wait_s, 0.0), RETRY_AFTER_S_MAX) if math.isfinite(wait_s) else None

    def _end_socket(self, ended: threading.Event) -> None:
        ended.set()
        connection = self._connection
        open_socket = None if connection is None else connection.sock
        if open_socket is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(open_socket, socket.SHUT_RDWR)
