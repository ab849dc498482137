"""What a node of a cluster is given: its settings, and what it knows."""

from typing import Any, Protocol

from tokmesh._core.clock import Clock
from tokmesh.cluster.connection import NatsSettings
from tokmesh.log.file_log import FileLog
from tokmesh.log.record import AnyRecord
from tokmesh.store import Store


class Nats(NatsSettings, Protocol):
    @property
    def replicas(self) -> int: ...


class ClusterSettings(Protocol):
    """`cluster` of the configuration."""

    @property
    def name(self) -> str: ...
    @property
    def nats(self) -> Nats: ...
    @property
    def max_staleness_ms(self) -> int: ...
    @property
    def replication_factor(self) -> int | str: ...


class HasState(Protocol):
    """What the node knows. log: its own."""

    @property
    def node_id(self) -> str: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def table(self) -> Any: ...
    @property
    def keyring(self) -> Any: ...
    @property
    def store(self) -> Store: ...
    @property
    def log(self) -> FileLog[AnyRecord]: ...
