"""The connection to NATS: made, made again for as long as it takes, and what is wrong with it in words.

Whoever sends says how long it waits; nothing here waits longer. A refusal of NATS looks like silence to who asked (denied
permissions above all), so that what the servers say of their own accord is kept as the reason.
"""

import asyncio
import logging
import re
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Protocol

import nats.errors
import orjson
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from tokmesh.cluster.direct_client import Direct, DirectClient
from tokmesh.cluster.subjects import INBOX_PREFIX

CONNECT_TIMEOUT_S: Final = 2.0
RETRY_S: Final = 0.5
PING_INTERVAL_S: Final = 1.0
VERSION_MIN: Final = (2, 14)
VERSION_WANTED: Final = (2, 15)

logger = logging.getLogger("tokmesh.cluster")

Handler = Callable[[Msg], Awaitable[None]]


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


class LinkDown(Exception):
    """There is no connection, no answer in time, or nobody who could answer; `str()` says which."""


class ApiRefused(Exception):
    """JetStream said no. `code`: its err_code; `status`: of HTTP's kind; `str()`: its words."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error.get("description", "refused")))
        self.code = int(error.get("err_code", 0))
        self.status = int(error.get("code", 0))


class VersionRefused(Exception):
    """The server is too old; `str()` says which versions."""


class Link:
    """See the module. name: of this client, as the servers' lists show it. Life: connect, anything, close."""

    def __init__(self, settings: NatsSettings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._client = DirectClient()
        self._reason: str | None = "not connected yet"
        self._closing = False
        self._made = False
        self.reconnects = 0

    async def connect(self) -> None:
        """Returns when there is a connection. Raises VersionRefused; what else is wrong is told and tried again."""
        while True:  # until there is one, or the caller gives up
            try:
                await asyncio.wait_for(self._connect_once(), CONNECT_TIMEOUT_S * (1 + len(self._settings.servers)))
            except (OSError, TimeoutError, nats.errors.Error, ssl.SSLError, ValueError) as error:
                self._fail(f"cannot connect: {str(error) or type(error).__name__}")
                await asyncio.sleep(RETRY_S)
            else:
                break
        self._made = True
        self._judge_version()
        self._reason = None
        logger.info("connected to NATS", extra={"version": self.server_version})

    async def close(self) -> None:
        """Ends the connection."""
        self._closing = True
        if self._made:
            await self._drop()

    @property
    def connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._client.is_connected

    @property
    def state(self) -> str:
        """connecting (there was no connection yet), connected, refused (connected, and a server has refused something), lost."""
        if not self._made:
            return "connecting"
        if not self._client.is_connected:
            return "lost"
        return "connected" if self._reason is None else "refused"

    @property
    def is_old(self) -> bool:
        """Whether the server connected to is older than is recommended."""
        return self._made and _version_of(self.server_version) < VERSION_WANTED

    @property
    def reason(self) -> str | None:
        """Why there is none, or what the servers refuse; None when all is well."""
        return self._reason

    @property
    def server_version(self) -> str:
        """Of the server connected to; "" without one."""
        version = self._client._server_info.get("version", "")
        return str(version)

    async def publish(self, subject: str, payload: bytes, reply: str = "", headers: dict[str, str] | None = None) -> None:
        """Sends, without knowing whether it arrives. Raises LinkDown."""
        try:
            await self._client.publish(subject, payload, reply=reply, headers=headers)
        except (nats.errors.Error, OSError) as error:
            raise LinkDown(str(error)) from error

    async def subscribe(self, subject: str, handler: Handler) -> Subscription:
        """Calls `handler` for each message, one after the other. Raises LinkDown."""
        try:
            return await self._client.subscribe(subject, cb=handler, pending_msgs_limit=0, pending_bytes_limit=0)
        except (nats.errors.Error, OSError) as error:
            raise LinkDown(str(error)) from error

    async def subscribe_direct(self, subject: str, direct: Direct) -> Subscription:
        """Gives the deliveries of a consumer to `direct`, without an object each, and told of at most once for each piece that is
        read from the connection. Raises LinkDown."""
        try:
            return await self._client.subscribe_direct(subject, direct)
        except (nats.errors.Error, OSError) as error:
            raise LinkDown(str(error)) from error

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Ends it, also when the connection is gone."""
        self._client.forget_direct(subscription)
        try:
            await subscription.unsubscribe()
        except (nats.errors.Error, OSError):
            pass  # the server forgets it with the connection

    async def request(self, subject: str, payload: bytes, timeout_s: float, headers: dict[str, str] | None = None) -> Msg:
        """The answer. Raises LinkDown."""
        try:
            return await self._client.request(subject, payload, timeout=timeout_s, headers=headers)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise LinkDown(str(error) or type(error).__name__) from error

    async def ask(self, name: str, body: object, timeout_s: float = 2.0) -> dict[str, Any]:
        """What the JetStream API answers to `$JS.API.<name>`. Raises LinkDown, ApiRefused."""
        message = await self.request(f"$JS.API.{name}", orjson.dumps(body) if body is not None else b"", timeout_s)
        answer: dict[str, Any] = orjson.loads(message.data)
        if "error" in answer:
            raise ApiRefused(answer["error"])
        return answer

    def new_inbox(self) -> str:
        """A subject for answers, of this client only."""
        return self._client.new_inbox()

    async def _connect_once(self) -> None:
        settings = self._settings
        client = DirectClient()
        await client.connect_with(
            settings.credentials_file,
            servers=list(settings.servers),
            name=self._name,
            inbox_prefix=INBOX_PREFIX,
            no_echo=True,
            tls=tls_context(settings.tls),
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RETRY_S,
            connect_timeout=CONNECT_TIMEOUT_S,
            ping_interval=PING_INTERVAL_S,
            max_outstanding_pings=2,
            error_cb=self._told_error,
            disconnected_cb=self._told_disconnected,
            reconnected_cb=self._told_reconnected,
        )
        self._client = client

    def _judge_version(self) -> None:
        version = _version_of(self.server_version)
        if version < VERSION_MIN:
            raise VersionRefused(
                f"nats-server {self.server_version} is too old: 2.14 or newer is needed, 2.15 or newer recommended "
                "(older ones let several writers win one race, and do not forget what has ended)"
            )
        if version < VERSION_WANTED:
            logger.warning("nats-server is older than 2.15 and syncs messages one by one", extra={"version": self.server_version})

    async def _drop(self) -> None:
        try:
            await asyncio.wait_for(self._client.close(), CONNECT_TIMEOUT_S)
        except (OSError, TimeoutError, nats.errors.Error):
            pass

    def _fail(self, reason: str) -> None:
        if reason != self._reason:
            logger.warning("NATS: %s", reason)
        self._reason = reason

    async def _told_error(self, error: Exception) -> None:
        if not self._closing:
            self._fail(re.sub(r"\s+", " ", str(error)) or type(error).__name__)

    async def _told_disconnected(self) -> None:
        if not self._closing:
            self._fail("the connection is lost")

    async def _told_reconnected(self) -> None:
        self._reason = None
        self.reconnects += 1
        logger.info("connected to NATS again", extra={"version": self.server_version})


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


def _version_of(text: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
