"""The API keys that the log tells of: one StoredKey each, changed by `Store.apply` only.

The ring holds no secret: per key an Argon2id verifier, and a keyed BLAKE2b tag that rejects wrong secrets cheaply.
"""

import ipaddress
from collections.abc import Sequence
from typing import Final

from tokmesh._core.principal import ApiKey
from tokmesh.ids import format_key_id
from tokmesh.log.record import KeyCreated, KeyStatusChanged

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_CHANGED: Final = 1
_UNCHANGED: Final = 0


def parse_networks(allowedlist: Sequence[str]) -> tuple[Network, ...] | None:
    """Networks of an allow-list of addresses and CIDRs; None, any address, for an empty list. ValueError when one is neither."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in allowedlist) or None


class StoredKey:
    """One key: what the wire path shares (`api_key`) and what only keys and their listing need."""

    __slots__ = ("allowedlist", "api_key", "argon2_hash", "created_at_ms", "description", "key_id16", "salt", "tag")

    def __init__(self, record: KeyCreated) -> None:
        self.api_key = ApiKey(
            format_key_id(record.key_id),
            record.role,
            expires_at_ms=record.expires_at_ms,
            networks=parse_networks(record.allowedlist),
            rate_per_second=record.rate_limit,
        )
        self.key_id16 = record.key_id
        self.description = record.description
        self.allowedlist = record.allowedlist
        self.created_at_ms = record.time_ms
        self.argon2_hash = record.argon2_hash
        self.salt = record.salt
        self.tag = record.tag

    def created_record(self) -> KeyCreated:
        """The record that makes this key, enabled."""
        key = self.api_key
        return KeyCreated(
            self.created_at_ms, self.key_id16, key.role_name, self.description, self.allowedlist, key.rate_per_second,
            key.expires_at_ms, self.argon2_hash, self.salt, self.tag,
        )  # fmt: skip


class KeyRing:
    """All keys by `tmak-…`, in order of creation."""

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        self._keys: dict[str, StoredKey] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def get(self, key_id: str) -> StoredKey | None:
        """The key of `key_id` (lower case), or None."""
        return self._keys.get(key_id)

    def all(self) -> list[StoredKey]:
        """Every key, oldest first."""
        return list(self._keys.values())

    def records(self) -> list[KeyCreated | KeyStatusChanged]:
        """Records that make an empty ring this one."""
        found: list[KeyCreated | KeyStatusChanged] = []
        for stored in self._keys.values():
            found.append(stored.created_record())
            if not stored.api_key.active:
                found.append(KeyStatusChanged(stored.created_at_ms, stored.key_id16, False))
        return found

    def exchange(self, other: "KeyRing") -> None:
        """Takes over the other's keys. Whoever was let in by one of this ring's must show its credential again."""
        for stored in self._keys.values():
            stored.api_key.set_active(stored.api_key.active)  # makes grants stale
        self._keys = other._keys

    def apply_created(self, record: KeyCreated) -> int:
        """Adds the key; 0 when its id is taken. For Store.apply."""
        key_id = format_key_id(record.key_id)
        if key_id in self._keys:
            return _UNCHANGED
        self._keys[key_id] = StoredKey(record)
        return _CHANGED

    def apply_status(self, record: KeyStatusChanged) -> int:
        """Enables or disables the key; 0 when it is unknown or so already. For Store.apply."""
        stored = self._keys.get(format_key_id(record.key_id))
        if stored is None or stored.api_key.active == record.active:
            return _UNCHANGED
        stored.api_key.set_active(record.active)
        return _CHANGED
