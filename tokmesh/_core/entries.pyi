from tokmesh._core.arena import Arena
from tokmesh._core.image import Image
from tokmesh._core.index import Index
from tokmesh._core.interned import Interned
from tokmesh._core.memory import Zone
from tokmesh._core.wheel import Wheel

class Entries:
    slots_zone: Zone
    rows_zone: Zone
    queue_zone: Zone
    arena: Arena
    interned: Interned
    wheel: Wheel
    tokens: Index
    ids: Index
    users: Index
    devices: Index
    image: Image
    idle_ends_from_ms: int
    held_shards: int
    forgetting: int
    def __init__(
        self,
        *,
        tombstone_ttl_ms: int,
        seed: bytes | None = None,
        entries_max: int = ...,
        arena_bytes_max: int = ...,
    ) -> None: ...
