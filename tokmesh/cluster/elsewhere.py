"""A node of a cluster whose nodes hold a part of the sessions each: it asks others about what they hold, and they ask it."""

from collections.abc import Callable

from tokmesh.cluster.answering import Answering
from tokmesh.cluster.asking import Asking, Placement
from tokmesh.cluster.link import Link
from tokmesh.cluster.placed_sessions import PlacedSessions
from tokmesh.cluster.subjects import Subjects
from tokmesh.sessions import Sessions


class Elsewhere:
    """sessions: this node's. may_answer: whether it may say anything about sessions now. request_id: of the request whose handler
    runs, or "". Life: start, when the link has a connection; drain; stop."""

    def __init__(
        self,
        link: Link,
        subjects: Subjects,
        sessions: Sessions,
        placement: Placement,
        node_id: str,
        *,
        may_answer: Callable[[], bool],
        request_id: Callable[[], str],
        max_staleness_ms: int,
    ) -> None:
        self.asking = Asking(link, subjects, placement, request_id, may_answer)
        self.answering = Answering(link, subjects.questions(node_id), sessions, placement, may_answer)
        self.sessions = PlacedSessions(sessions, placement, self.asking, node_id, max_staleness_ms / 1000)

    async def start(self) -> None:
        """Asks and answers from now on."""
        await self.asking.start()
        await self.answering.listen()

    async def drain(self) -> None:
        """Others are sent away, those that were not get their answers; what this node asks goes on."""
        await self.answering.drain()

    async def stop(self) -> None:
        """Whoever waits for an answer gets none, here or elsewhere."""
        self.asking.stop()
        await self.answering.stop()
