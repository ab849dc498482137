"""Where the records of this node go: its own log, or the stream of the cluster that it belongs to.

A data directory is of one kind for good: what a node alone has written is not in any cluster, and a member that went alone would go
its own way. Both are refused.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from tokmesh._core.histogram import HistogramBlock
from tokmesh._core.server import Server
from tokmesh.config import ConfigError, Problem, Settings
from tokmesh.host import data_directory
from tokmesh.host.apart import Apart, begin_anew
from tokmesh.log.interface import Reached
from tokmesh.sessions import SessionOperations, Sessions
from tokmesh.state import State

if TYPE_CHECKING:  # what it needs is an extra
    from tokmesh.cluster.administration import Administration
    from tokmesh.cluster.asking import Tracing as AskTracing
    from tokmesh.cluster.node import ClusterNode
    from tokmesh.cluster.publishing import Tracing
    from tokmesh.cluster.view import ClusterView


class HasHistograms(Protocol):
    """How long beats and revocations take, in nanoseconds, one row each."""

    @property
    def gossip(self) -> HistogramBlock: ...
    @property
    def revoke(self) -> HistogramBlock: ...


class NodeLog:
    """server: of this process, once there is one. propagation: to be filled. end: ends this process when the node is to
    begin anew. `cluster`: None for a node alone."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        server: Callable[[], Server],
        version: str,
        propagation: HasHistograms,
        end: Callable[[], None],
    ) -> None:
        self._state = state
        self._end = end
        self._propagation = propagation
        self._server = server
        self._name = settings.cluster.name
        self._max_staleness_ms = settings.cluster.max_staleness_ms
        self._loop: asyncio.AbstractEventLoop | None = None
        self.cluster: ClusterNode | None = self._make_cluster(settings, version) if settings.cluster.enabled else None

    @property
    def log(self) -> Any:
        """What is proposed to: a log.interface.Log, with `group_records`."""
        return self._state.log if self.cluster is None else self.cluster.log

    @property
    def everywhere(self) -> "Callable[[], Awaitable[Reached]] | None":
        """Waits until every node has what this one has; None for a node alone."""
        return None if self.cluster is None else self.cluster.everywhere

    @property
    def first_key_id(self) -> bytes | None:
        """The id of the first API key, whichever node makes it; None for a node alone, where it may be any. After `start`."""
        return None if self.cluster is None else self.cluster.following.first_key_id

    @property
    def administration(self) -> "Administration | None":
        """What an operator may do to the cluster; None for a node alone."""
        if self.cluster is None:
            return None
        from tokmesh.cluster.administration import Administration

        return Administration(self.cluster, self._name)

    @property
    def view(self) -> "Callable[[], ClusterView] | None":
        """Tells what this node knows of its cluster, on the loop's thread; None for a node alone."""
        return None if self.cluster is None else self.cluster.view

    def placed(self, sessions: Sessions, tracing: "AskTracing | None") -> SessionOperations:
        """Operations on all sessions of the cluster, also on those that other nodes hold. sessions: this node's; tracing: what is
        told of questions to others. To be called before `start`."""
        cluster = self.cluster
        if cluster is None:
            return sessions
        from tokmesh.cluster.elsewhere import Elsewhere

        cluster.elsewhere = Elsewhere(
            cluster.link, cluster.subjects, sessions, cluster.part.placement, self._state.node_id,
            may_answer=cluster.may_answer, request_id=self._request_id, max_staleness_ms=self._max_staleness_ms,
        )  # fmt: skip
        cluster.elsewhere.asking.tracing = tracing
        return cluster.elsewhere.sessions

    def scope(self) -> dict[str, str]:
        """What a log line of this moment belongs to that is told while another node's question is answered."""
        if self.cluster is None:
            return {}
        from tokmesh.cluster.answering import asked_request_id

        request_id = asked_request_id.get()
        return {"request_id": request_id} if request_id else {}

    def _request_id(self) -> str:
        """Of the request whose handler runs, here or for another node; "" outside of any."""
        request = self._server().handling
        return self.scope().get("request_id", "") if request is None else request.request_id

    def trace(self, tracing: "Callable[[str], Tracing | None]") -> None:
        """Before anything is published. tracing: what is told of publications to the stream of that name."""
        if self.cluster is not None:
            self.cluster.publishing.tracing = tracing(self.cluster.stream.name)

    def sweeping(self, sweep: Callable[[int], int]) -> Callable[[int], int]:
        """`sweep`, which ends what is due; in a cluster by what this node knows at that moment of being behind."""
        cluster = self.cluster
        if cluster is None:
            return sweep

        def look_and_sweep(budget: int) -> int:
            cluster.look()
            return sweep(budget)

        return look_and_sweep

    async def start(
        self, loop: asyncio.AbstractEventLoop, apply: Callable[[int, Any], object], stop: asyncio.Event
    ) -> bool:
        """When the own log is replayed. In a cluster this takes until the node belongs, perhaps for as long as NATS is away; False
        when `stop` came first. Raises ConfigError TM-CFG-1005, TM-CFG-1006, ApiError TM-CLST-4090, TM-CLST-5050."""
        following = self._state.store.following
        self._loop = loop
        if self.cluster is None:
            if following.bound:
                raise _refused("this directory is of a node of a cluster: give it back to that, or use an empty one")
            self._state.log.start(loop, apply)
            return True
        if self._state.store.applied_sequence and not following.bound:
            raise _refused("this directory is of a node that was alone; what it holds is not in the cluster: use an empty one")
        from tokmesh.cluster.ending import end

        self._server().fresh_until_ns = 0
        starting = loop.create_task(self.cluster.start(loop, apply))
        stopped = loop.create_task(stop.wait())
        await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not starting.done():
            await end(starting)
            return False
        self._result(starting)
        return not stop.is_set()

    def _result(self, starting: "asyncio.Task[None]") -> None:
        from tokmesh.cluster.link import VersionRefused

        try:
            starting.result()
        except VersionRefused as error:
            raise ConfigError([Problem("TM-CFG-1006", "cluster.nats.servers", "", str(error))]) from None

    async def close(self) -> None:
        """Leaves the cluster be, closes the own log."""
        if self.cluster is not None:
            await self.cluster.stop()
        await self._state.log.close()

    def _decided(self) -> None:
        """In another thread: it is written down that this node is to begin anew."""
        with contextlib.suppress(RuntimeError):  # the loop has ended: the next start sees to it
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._end)

    def _make_cluster(self, settings: Settings, version: str) -> "ClusterNode":
        from tokmesh.cluster.node import ClusterNode

        begin_anew(settings.storage.dir)  # the log is locked, and not read yet

        def set_fresh_until(monotonic_ns: int, reason: str) -> None:
            server = self._server()
            server.fresh_until_ns, server.fence_reason = monotonic_ns, reason

        return ClusterNode(
            settings.cluster,
            self._state,
            incarnation=data_directory.next_incarnation(settings.storage.dir, self._state.clock),
            version=version,
            tombstone_ttl_ms=settings.session.tombstone_ttl_ms,
            life_ms_max=settings.session.ttl.max_ms,
            apart=Apart(settings.storage.dir, self._decided),
            request_id=self._request_id,
            set_fresh_until=set_fresh_until,
            gossip_lag=self._propagation.gossip,
            revoke_lag=self._propagation.revoke,
        )


def _refused(rule: str) -> ConfigError:
    return ConfigError([Problem("TM-CFG-1005", "cluster.enabled", "", rule)])
