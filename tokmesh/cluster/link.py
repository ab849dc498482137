"""The link to NATS: a connection at a time, made again for as long as it takes, and what is wrong with it in words.

Each connection is judged anew before anything is sent by it: a server that is too old is passed over for another. Subscriptions
are the link's: each connection gets all of them. Whatever ends a connection, the next is tried at once; nothing but `close` ends
that. Whoever sends says how long it waits; nothing here waits longer. A refusal of NATS looks like silence to who asked (denied
permissions above all), so that what the servers say of their own accord is kept as the reason.
"""

import asyncio
import logging
import random
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

import nats.errors
import orjson
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription

from tokmesh.cluster.connection import Connection, NatsSettings, host_of, words_of
from tokmesh.cluster.direct_client import Direct
from tokmesh.cluster.ending import end
from tokmesh.cluster.lasting import begin
from tokmesh.cluster.nats_conf import SERVERS_SUBJECT
from tokmesh.cluster.subjects import INBOX_PREFIX

RETRY_S: Final = 0.5
VERSION_MIN: Final = (2, 14)
VERSION_WANTED: Final = (2, 15)

logger = logging.getLogger("tokmesh.cluster")

Handler = Callable[[Msg], Awaitable[None]]


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


class Subscription:
    """Of a link, over all its connections. current: that of the connection there is, or was last."""

    __slots__ = ("current", "handler", "subject")

    def __init__(self, subject: str, handler: Handler) -> None:
        self.subject = subject
        self.handler = handler
        self.current: NatsSubscription | None = None


class DirectSubscription(NamedTuple):
    """Of one connection."""

    connection: Connection
    current: NatsSubscription


class Link:
    """See the module. name: of this client, as the servers' lists show it. Life: connect, anything, close."""

    def __init__(self, settings: NatsSettings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._connection: Connection | None = None
        self._up = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._subscriptions: set[Subscription] = set()
        self._reason: str | None = "not connected yet"
        self.reconnects = 0

    async def connect(self) -> None:
        """Returns when there is a connection. Raises VersionRefused when all servers in reach are too old; what else is
        wrong is told and tried again."""
        await self._connect(refuse_old=True)
        self._keeping = begin(self._keep, "tokmesh-link")

    async def close(self) -> None:
        """Ends the connection."""
        await end(self._keeping)
        self._up.clear()
        if self._connection is not None:
            await self._connection.leave()

    @property
    def connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._connection is not None and self._connection.is_connected

    @property
    def state(self) -> str:
        """connecting (there was no connection yet), connected, refused (connected, and a server has refused something), lost."""
        if self._connection is None:
            return "connecting"
        if not self.connected:
            return "lost"
        return "connected" if self._reason is None else "refused"

    @property
    def is_old(self) -> bool:
        """Whether the server connected to is older than is recommended."""
        return self._connection is not None and _version_of(self.server_version) < VERSION_WANTED

    @property
    def reason(self) -> str | None:
        """Why there is none, or what the servers refuse; None when all is well."""
        return self._reason

    @property
    def server_version(self) -> str:
        """Of the server connected to, or last connected to; "" without one."""
        return "" if self._connection is None else self._connection.server_version

    async def publish(self, subject: str, payload: bytes, reply: str = "", headers: dict[str, str] | None = None) -> None:
        """Sends, without knowing whether it arrives. Raises LinkDown."""
        connection = self._connection
        if connection is None or not connection.is_connected:
            raise LinkDown("there is no connection")
        try:
            await connection.publish(subject, payload, reply=reply, headers=headers)
        except (nats.errors.Error, OSError) as error:
            raise LinkDown(words_of(error)) from error

    async def subscribe(self, subject: str, handler: Handler) -> Subscription:
        """Calls `handler` for each message, one after the other, on this connection and every later one. Where there is none just
        now, nothing is heard until there is."""
        subscription = Subscription(subject, handler)
        self._subscriptions.add(subscription)
        if self._connection is not None and self.connected:
            await self._begin(subscription, self._connection)
        return subscription

    async def subscribe_direct(self, subject: str, direct: Direct) -> DirectSubscription:
        """Gives the deliveries of a consumer to `direct`, without an object each, and told of at most once for each piece that is
        read from the connection. Ends with the connection. Raises LinkDown."""
        connection = self._connection
        if connection is None or not connection.is_connected:
            raise LinkDown("there is no connection")
        try:
            return DirectSubscription(connection, await connection.subscribe_direct(subject, direct))
        except (nats.errors.Error, OSError) as error:
            raise LinkDown(words_of(error)) from error

    async def unsubscribe_direct(self, subscription: DirectSubscription) -> None:
        """Ends it, also when the connection is gone."""
        connection, current = subscription
        connection.forget_direct(current)
        try:
            await current.unsubscribe()
        except (nats.errors.Error, OSError):
            pass  # the server forgets it with the connection

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Ends it, also when the connection is gone."""
        self._subscriptions.discard(subscription)
        if subscription.current is not None:
            try:
                await subscription.current.unsubscribe()
            except (nats.errors.Error, OSError):
                pass  # the server forgets it with the connection

    async def request(self, subject: str, payload: bytes, timeout_s: float, headers: dict[str, str] | None = None) -> Msg:
        """The answer; a connection is waited for in that time. Raises LinkDown."""
        until_s = time.monotonic() + timeout_s
        if not self.connected:
            try:
                await asyncio.wait_for(self._up.wait(), timeout_s)
            except TimeoutError:
                raise LinkDown("there is no connection") from None
        assert self._connection is not None
        left_s = until_s - time.monotonic()
        try:
            return await self._connection.request(subject, payload, timeout=left_s, headers=headers)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise LinkDown(words_of(error)) from error

    async def ask(self, name: str, body: object, timeout_s: float = 2.0) -> dict[str, Any]:
        """What the JetStream API answers to `$JS.API.<name>`. Raises LinkDown, ApiRefused."""
        return _read(await self.request(f"$JS.API.{name}", orjson.dumps(body) if body is not None else b"", timeout_s), name)

    async def store(self, subject: str, payload: bytes, message_id: str, timeout_s: float) -> int:
        """The sequence at which the stream has the record; of those with one message id it keeps the first. Raises LinkDown,
        ApiRefused."""
        answer = _read(await self.request(subject, payload, timeout_s, {"Nats-Msg-Id": message_id}), subject)
        return int(answer["seq"])

    def new_inbox(self) -> str:
        """A subject for answers, of this client only."""
        return f"{INBOX_PREFIX}.{secrets.token_hex(12)}"

    async def _connect(self, *, refuse_old: bool) -> None:
        while True:  # until there is one, or the caller gives up
            hindrances: dict[str, Exception] = {}
            for url in random.sample(self._settings.servers, len(self._settings.servers)):
                connection = Connection(self._settings, self._name, self._refused)
                try:
                    await connection.open(url)
                    _judge_version(connection)
                except Exception as error:  # a peer's bytes may raise anything in the client of NATS; it is a failed attempt
                    connection.abandon()
                    hindrances[host_of(url)] = error
                else:
                    await self._use(connection, hindrances)
                    return
            old = [error for error in hindrances.values() if isinstance(error, VersionRefused)]
            if old and refuse_old:
                raise old[0]
            self._fail(f"cannot connect: {_told(hindrances)}")
            await asyncio.sleep(RETRY_S)

    async def _use(self, connection: Connection, hindrances: dict[str, Exception]) -> None:
        passed_over = {host: error for host, error in hindrances.items() if isinstance(error, VersionRefused)}
        if passed_over:
            logger.warning("NATS: a server is passed over: %s", _told(passed_over))
        if _version_of(connection.server_version) < VERSION_WANTED:
            logger.warning(
                "nats-server is older than 2.15 and syncs messages one by one", extra={"version": connection.server_version}
            )
        self._connection = connection
        self._reason = None
        for subscription in list(self._subscriptions):
            await self._begin(subscription, connection)
        self._up.set()
        logger.info("connected to NATS", extra={"version": connection.server_version})

    async def _keep(self) -> None:
        assert self._connection is not None
        while True:  # ends by cancellation
            reason = await self._connection.until_over()
            self._up.clear()
            self._connection.abandon()
            self._fail(f"the connection is lost: {reason}" if reason else "the connection is lost")
            await self._connect(refuse_old=False)
            self.reconnects += 1

    async def _begin(self, subscription: Subscription, connection: Connection) -> None:
        try:
            subscription.current = await connection.subscribe(
                subscription.subject, cb=subscription.handler, pending_msgs_limit=0, pending_bytes_limit=0
            )
        except (nats.errors.Error, OSError) as error:
            logger.debug("not subscribed; the next connection will be", extra={"reason": words_of(error)})

    def _refused(self, reason: str) -> None:
        if SERVERS_SUBJECT.lower() not in reason.lower():  # that is asked where it may be, and nothing depends on it
            self._fail(reason)

    def _fail(self, reason: str) -> None:
        if reason != self._reason:
            logger.warning("NATS: %s", reason)
        self._reason = reason


def _read(message: Msg, asked: str) -> dict[str, Any]:
    """What JetStream answered to a request. Raises LinkDown, ApiRefused."""
    try:
        answer: Any = orjson.loads(message.data)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise LinkDown(f"{asked} was answered with something else")
    if "error" in answer:
        raise ApiRefused(answer["error"])
    return answer


def _judge_version(connection: Connection) -> None:
    version = connection.server_version
    if _version_of(version) < VERSION_MIN:
        raise VersionRefused(
            f"nats-server {version} is too old: 2.14 or newer is needed, 2.15 or newer recommended "
            "(older ones let several writers win one race, and do not forget what has ended)"
        )


def _told(hindrances: Mapping[str, Exception]) -> str:
    """What hinders, by server where there are several."""
    if len(hindrances) == 1:
        return words_of(*hindrances.values())
    return "; ".join(f"{host}: {words_of(error)}" for host, error in sorted(hindrances.items()))


def _version_of(text: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
