"""One connection to one server of NATS: made, alive, over. Whatever ends it ends it for good; link.py makes the next.

nats-py would make connections again by itself, to servers of any version, and does it no more after some errors (an authorization
that was taken away above all). So it is kept from that, and told of its end in a way that cannot wait or fail: at the end of a
connection nothing is flushed, all its tasks are told to end, and its socket is gone at once.
"""

import asyncio
import base64
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client, Srv

from tokmesh.cluster.credentials import read_credentials
from tokmesh.cluster.direct_client import DirectClient
from tokmesh.cluster.subjects import INBOX_PREFIX

CONNECT_TIMEOUT_S: Final = 2.0
LEAVE_TIMEOUT_S: Final = 1.0
PING_INTERVAL_S: Final = 1.0
PINGS_MAX: Final = 2  # without an answer
FLUSH_TIMEOUT_S: Final = 1.0  # of a message that finds 2 MB unsent
POLL_S: Final = 0.1


class Tls(Protocol):
    @property
    def ca_file(self) -> Path | None: ...
    @property
    def cert_file(self) -> Path | None: ...
    @property
    def key_file(self) -> Path | None: ...


class NatsSettings(Protocol):
    """`cluster.nats` of the configuration."""

    @property
    def servers(self) -> tuple[str, ...]: ...
    @property
    def credentials_file(self) -> Path | None: ...
    @property
    def tls(self) -> Tls: ...


def abort(client: Client) -> None:
    """Ends its socket at once, which nats-py leaves open when it is refused."""
    for name in ("_io_writer", "_bare_io_writer"):
        writer = getattr(client._transport, name, None)
        if writer is not None:
            writer.transport.abort()


class Connection(DirectClient):
    """name: of this client, as the servers' lists show it; told: of what the server refuses without ending the connection."""

    def __init__(self, settings: NatsSettings, name: str, told: Callable[[str], None]) -> None:
        super().__init__()
        self._settings = settings
        self._name = name
        self._told = told

    async def open(self, url: str) -> None:
        """To that server, within CONNECT_TIMEOUT_S. Raises whatever hinders it, BadCredentials and OSError of files too; nothing is
        open then."""
        try:
            await asyncio.wait_for(self._open(url), CONNECT_TIMEOUT_S)
        except TimeoutError:
            self.abandon()
            raise TimeoutError(f"no answer within {CONNECT_TIMEOUT_S:g} s") from None
        except BaseException as error:
            told = self._told_last()
            self.abandon()
            if told and isinstance(error, OSError):
                raise nats.errors.Error(f"nats: {told}") from error
            raise

    def abandon(self) -> None:
        """Ends it at once; what was not sent is not sent."""
        self._status = Client.CLOSED
        subscriptions = (each._wait_for_msgs_task for each in self._subs.values())
        current = asyncio.current_task()
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task, *subscriptions):
            if task is not None and task is not current:
                task.cancel()
        self._subs.clear()
        self.forget_directs()
        while self._flush_queue is not None and not self._flush_queue.empty():  # whoever waits there would wait for ever
            waiting = self._flush_queue.get_nowait()
            if not waiting.done():
                waiting.set_result(None)
        abort(self)

    async def leave(self) -> None:
        """Ends it when the server has got what was sent, or LEAVE_TIMEOUT_S is over."""
        try:
            if self.is_connected:
                await asyncio.wait_for(self.flush(), LEAVE_TIMEOUT_S)
        except (nats.errors.Error, OSError, TimeoutError):
            pass
        self.abandon()

    async def until_over(self) -> str:
        """Returns, with the reason, when the connection is over, or nobody reads it any more."""
        while self.is_connected and not any(
            task is None or task.done() for task in (self._reading_task, self._ping_interval_task, self._flusher_task)
        ):
            await asyncio.sleep(POLL_S)
        return "" if self.last_error is None else words_of(self.last_error)

    @property
    def server_version(self) -> str:
        """Of the server."""
        return str(self._server_info.get("version", ""))

    def _told_last(self) -> str:
        """Why the server has closed the connection, where that came before it was asked anything: it is unread then."""
        unread = getattr(getattr(self._transport, "_io_reader", None), "_buffer", b"")
        found = re.search(rb"-ERR '([^'\r\n]*)'", unread)
        return "" if found is None else found[1].decode("utf-8", "replace")

    async def _open(self, url: str) -> None:
        settings = self._settings
        path = settings.credentials_file
        if path is not None:
            read_credentials(path)  # before anything is connected to
        await self.connect(
            servers=[url],
            name=self._name,
            inbox_prefix=INBOX_PREFIX,
            no_echo=True,
            tls=tls_context(settings.tls),
            user_credentials=None if path is None else str(path),
            allow_reconnect=False,
            connect_timeout=CONNECT_TIMEOUT_S,  # type: ignore[arg-type]  # any number does
            ping_interval=PING_INTERVAL_S,  # type: ignore[arg-type]
            max_outstanding_pings=PINGS_MAX,
            flush_timeout=FLUSH_TIMEOUT_S,
            error_cb=self._told_error,
        )

    # ── what nats-py would do otherwise ──

    async def _select_next_server(self) -> None:
        # The one there is, once, and what hinders it is raised: others that the server tells of are not ours to use.
        server: Srv = self._server_pool[0]
        await self._connect_to_server(server)
        self._current_server = server

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        self.abandon()

    def _setup_nkeys_connect(self) -> None:
        self._signature_cb = self._sign

    def _sign(self, nonce: str) -> bytes:
        """Called first of all: what is sent beside the signature is of the same reading of the file."""
        import nkeys

        assert self._settings.credentials_file is not None
        seed, jwt = read_credentials(self._settings.credentials_file)
        pair = nkeys.from_seed(seed)
        self._user_jwt_cb = None if jwt is None else lambda: bytearray(jwt)
        self._public_nkey = pair.public_key.decode()
        return base64.b64encode(pair.sign(nonce.encode()))

    async def _told_error(self, error: Exception) -> None:
        # While there is no connection, or none any more, the error is raised, or the reason of the end.
        if self.is_connected and not isinstance(error, nats.errors.UnexpectedEOF | nats.errors.FlushTimeoutError):
            self._told(words_of(error))


def tls_context(tls: Tls) -> ssl.SSLContext | None:
    """None: no TLS is configured. Raises OSError (ssl.SSLError) for files that are no certificates."""
    if tls.ca_file is None and tls.cert_file is None:
        return None
    context = ssl.create_default_context(cafile=None if tls.ca_file is None else str(tls.ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.cert_file is not None:
        # The callback keeps OpenSSL from asking for a passphrase at the terminal of a server.
        context.load_cert_chain(tls.cert_file, tls.key_file, password=lambda: b"")
    return context


def host_of(url: str) -> str:
    """Host and port, without the user and the password that may stand before them."""
    return urlsplit(url).netloc.rpartition("@")[2] or url.rpartition("@")[2]


def words_of(error: BaseException) -> str:
    """Of one line."""
    return re.sub(r"\s+", " ", str(error)) or type(error).__name__
