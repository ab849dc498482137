"""The client of NATS with a way past its messages: the deliveries of a consumer go from the connection into batches of records.

nats-py makes of each message an object, a dictionary of its headers and a turn of a task: a fresh node that reads a million records
would spend most of its time there. Invariants: only the subscriptions that ask for it are given this way; everything else, and
whatever comes for those that is no delivery, goes through nats-py; both in the order in which it came.
"""

from typing import Final, Protocol

import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.protocol.parser import Parser

from tokmesh._core.nats_frames import BadFrame, Frames
from tokmesh._core.streamed import Deliveries

MESSAGES_LIMIT: Final = 0  # of nats-py's queues: none


class Direct(Protocol):
    """Who is given deliveries."""

    @property
    def deliveries(self) -> Deliveries: ...

    def delivered(self) -> None:
        """There may be something in `deliveries`."""

    def told(self, reply: str, headers: dict[str, str]) -> None:
        """A message that is no delivery: what the server says of the consumer."""


class DirectClient(Client):
    """nats-py's, but for that."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = Frames()
        self.directs: dict[int, Direct] = {}
        self._ps = _FrameParser(self)

    async def subscribe_direct(self, subject: str, direct: Direct) -> Subscription:
        """As `subscribe`; nothing may be sent there before this has returned, or it is lost."""

        async def early(_: object) -> None:
            """The consumer's numbering tells that it is missing."""

        subscription = await self.subscribe(
            subject, cb=early, pending_msgs_limit=MESSAGES_LIMIT, pending_bytes_limit=MESSAGES_LIMIT
        )
        self.directs[subscription._id] = direct
        self.frames.deliver_to(subscription._id, direct.deliveries)
        return subscription

    def forget_direct(self, subscription: Subscription) -> None:
        """What still comes for it is nobody's."""
        self.frames.forget(subscription._id)
        self.directs.pop(subscription._id, None)


    def forget_directs(self) -> None:
        """Whatever comes is nobody's."""
        for subscription_id in self.directs:
            self.frames.forget(subscription_id)
        self.directs.clear()


class _FrameParser(Parser):
    """Reads frames for nats-py, which does not see those of `directs`."""

    def __init__(self, client: DirectClient) -> None:
        self._client = client
        super().__init__(client)

    def reset(self) -> None:
        """Another connection begins."""
        super().reset()
        self._client.frames.clear()

    async def parse(self, data: bytes = b"") -> None:
        client = self._client
        frames, directs = client.frames, client.directs
        frames.feed(data)
        try:
            while (frame := frames.read()) is not None:
                if isinstance(frame, bytes):
                    await super().parse(frame)
                    continue
                sid, subject, reply, payload, headers = frame
                direct = directs.get(sid)
                if direct is None:
                    await client._process_msg(sid, subject, reply, payload, headers or b"")
                else:
                    direct.delivered()  # what came before it
                    direct.told(reply.decode("utf-8", "replace"), await client._process_headers(headers) or {})
        except BadFrame as error:
            raise nats.errors.ProtocolError(str(error)) from None
        for direct in list(directs.values()):
            direct.delivered()
