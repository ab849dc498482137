"""Whether the servers that hold the stream sync each record before they acknowledge it (`sync_interval: always`).

Where one does not, a power cut can lose what was acknowledged. They are asked by SERVERS_SUBJECT of the system account, which
TokMesh's account must have imported (deploy/nats); without that nobody answers, and it stays unknown. The state is `off` when one
server that holds the stream says so, `always` when all of them have said that, `unknown` otherwise. What a server said last counts
while it is silent: another configuration takes a restart, after which it answers.
"""

import asyncio
import logging
from typing import Final, Literal

import orjson
from nats.aio.msg import Msg

from tokmesh.cluster.ending import end
from tokmesh.cluster.lasting import begin
from tokmesh.cluster.link import ApiRefused, Link, LinkDown
from tokmesh.cluster.nats_conf import SERVERS_SUBJECT
from tokmesh.cluster.stream import Stream

ASK_EVERY_S: Final = 60.0
RETRY_S: Final = 5.0
ANSWERS_WITHIN_S: Final = 2.0

State = Literal["unknown", "always", "off"]

logger = logging.getLogger("tokmesh.cluster")


class Syncing:
    """Runs from `start` to `stop`. `state`: see the module."""

    def __init__(self, link: Link, stream: Stream) -> None:
        self._link = link
        self._stream = stream
        self._told: dict[str, bool] = {}  # by server: whether it syncs always
        self._is_said = False
        self._task: asyncio.Task[None] | None = None
        self.state: State = "unknown"

    def start(self) -> None:
        """When there is a stream."""
        self._task = begin(self._run, "tokmesh-syncing")

    async def stop(self) -> None:
        """Ends it."""
        await end(self._task)

    async def look(self) -> None:
        """Asks all servers once. Raises LinkDown, ApiRefused."""
        holders = await self._stream.holders()
        answers = await self._ask(holders)
        self._told = {name: each for name, each in (self._told | answers).items() if name in holders}
        off = sorted(name for name, is_always in self._told.items() if not is_always)
        silent = sorted(holders - self._told.keys())
        self._set("off" if off else "unknown" if silent or not holders else "always", off or silent)

    async def _run(self) -> None:
        while True:  # ends by cancellation
            try:
                await self.look()
            except (LinkDown, ApiRefused) as error:
                logger.debug("the servers could not be asked how they sync", extra={"reason": str(error)})
                await asyncio.sleep(RETRY_S)
            else:
                await asyncio.sleep(ASK_EVERY_S)

    async def _ask(self, holders: set[str]) -> dict[str, bool]:
        answers: dict[str, bool] = {}
        done, inbox = asyncio.Event(), self._link.new_inbox()

        async def take(message: Msg) -> None:
            if "Status" in (message.headers or {}):  # nobody listens there: the account has not imported it
                done.set()
                return
            found = _answer_in(message.data)
            if found is not None:
                answers[found[0]] = found[1]
            if holders <= answers.keys():
                done.set()

        subscription = await self._link.subscribe(inbox, take)
        try:
            await self._link.publish(SERVERS_SUBJECT, b"", reply=inbox)
            await asyncio.wait_for(done.wait(), ANSWERS_WITHIN_S)
        except TimeoutError:
            pass
        finally:
            await self._link.unsubscribe(subscription)
        return answers

    def _set(self, state: State, servers: list[str]) -> None:
        if state == self.state and self._is_said:
            return
        self.state, self._is_said = state, True
        if state == "always":
            logger.info("the servers that hold the stream sync each record before they acknowledge it")
        elif state == "off":
            logger.warning(
                "NATS does not sync each record (sync_interval is not always): a power cut can lose what was acknowledged",
                extra={"servers": servers},
            )
        else:
            logger.warning(
                "it is not known whether NATS syncs each record: servers do not tell (deploy/nats has what permits it)",
                extra={"servers": servers},
            )


def _answer_in(data: bytes) -> tuple[str, bool] | None:
    """(name of the server, whether it syncs always); None: it is no such answer."""
    try:
        told = orjson.loads(data)["data"]
        config = (told.get("jetstream") or {}).get("config")
        return None if config is None else (str(told["server_name"]), config.get("sync_always") is True)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
