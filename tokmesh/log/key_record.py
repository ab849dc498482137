"""The records that API keys are made of. Their bytes are told in record.py."""

import ipaddress
import struct
from collections.abc import Callable, Sequence
from typing import Final

from tokmesh.log.record_format import FORMAT, Record, require

# What the format admits; the field rules of keys are narrower.
DESCRIPTION_BYTES_MAX: Final = 1024
ALLOWEDLIST_BYTES_MAX: Final = 8192
ARGON2_HASH_BYTES_MAX: Final = 512

_ROLE_BY_NUMBER: Final = {1: "metrics", 2: "validator", 4: "issuer", 8: "admin"}
_NUMBER_BY_ROLE: Final = {role: number for number, role in _ROLE_BY_NUMBER.items()}
_KEY_CREATED: Final = struct.Struct("<BBq16sBqd16s32sHHH")
_KEY_STATUS: Final = struct.Struct("<BBq16sB")


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


class KeyCreated(Record):
    """An API key begins. argon2_hash: the verifier of its secret (PHC string); tag: BLAKE2b-256 of the secret keyed with `salt`."""

    __slots__ = (
        "allowedlist",
        "argon2_hash",
        "description",
        "expires_at_ms",
        "key_id",
        "rate_limit",
        "role",
        "salt",
        "tag",
    )  # fmt: skip
    KIND = 16

    def __init__(
        self,
        time_ms: int,
        key_id: bytes,
        role: str,
        description: str,
        allowedlist: Sequence[str],
        rate_limit: float,
        expires_at_ms: int,
        argon2_hash: str,
        salt: bytes,
        tag: bytes,
    ) -> None:
        self.time_ms = time_ms
        self.key_id = key_id
        self.role = role
        self.description = description
        self.allowedlist = tuple(allowedlist)
        self.rate_limit = rate_limit
        self.expires_at_ms = expires_at_ms
        self.argon2_hash = argon2_hash
        self.salt = salt
        self.tag = tag

    def encode(self) -> bytes:
        texts = (self.description.encode(), " ".join(self.allowedlist).encode(), self.argon2_hash.encode())
        head = _KEY_CREATED.pack(
            16, FORMAT, self.time_ms, self.key_id, _NUMBER_BY_ROLE[self.role], self.expires_at_ms, self.rate_limit,
            self.salt, self.tag, *map(len, texts),
        )  # fmt: skip
        return b"".join((head, *texts))


class KeyStatusChanged(Record):
    """An API key is enabled or disabled."""

    __slots__ = ("active", "key_id")
    KIND = 17

    def __init__(self, time_ms: int, key_id: bytes, active: bool) -> None:
        self.time_ms = time_ms
        self.key_id = key_id
        self.active = active

    def encode(self) -> bytes:
        return _KEY_STATUS.pack(17, FORMAT, self.time_ms, self.key_id, self.active)


KeyRecord = KeyCreated | KeyStatusChanged


def _decode_key_created(payload: bytes) -> KeyCreated:
    (
        _, _, time_ms, key_id, role, expires_at_ms, rate_limit, salt, tag, description_length, list_length, hash_length,
    ) = _KEY_CREATED.unpack_from(payload)  # fmt: skip
    list_at = _KEY_CREATED.size + description_length
    hash_at = list_at + list_length
    require(
        len(payload) == hash_at + hash_length
        and role in _ROLE_BY_NUMBER
        and expires_at_ms >= 0
        and 0 <= rate_limit < float("inf")
        and description_length <= DESCRIPTION_BYTES_MAX
        and list_length <= ALLOWEDLIST_BYTES_MAX
        and hash_length <= ARGON2_HASH_BYTES_MAX
    )
    allowedlist = payload[list_at:hash_at].decode()
    networks = allowedlist.split(" ") if allowedlist else []
    require(all(_is_network(text) for text in networks))
    return KeyCreated(
        time_ms,
        key_id,
        _ROLE_BY_NUMBER[role],
        payload[_KEY_CREATED.size : list_at].decode(),
        networks,
        rate_limit,
        expires_at_ms,
        payload[hash_at:].decode(),
        salt,
        tag,
    )


def _decode_key_status(payload: bytes) -> KeyStatusChanged:
    _, _, time_ms, key_id, active = _KEY_STATUS.unpack(payload)
    require(active <= 1)
    return KeyStatusChanged(time_ms, key_id, active == 1)


KEY_DECODERS: Final[dict[int, Callable[[bytes], KeyRecord]]] = {16: _decode_key_created, 17: _decode_key_status}
