"""Encryption at rest: the operator's keys, what is derived from them, and the sealing of bytes.

A file that is sealed has a key of its own, HKDF-SHA256 of the operator's key, the file's random salt and what it is for
(`purpose`); its pieces are sealed with AES-256-GCM under numbers that go up, with whatever must not be changed around them
(headers) as associated data. A key is told by its id, eight bytes derived from it, which say nothing about it and stand in every
file that it seals.

Invariants: a Sealer takes each number once, whatever became of the bytes it sealed; it belongs to one file and one process, so
a file that another process began is never sealed further (its numbers are unknown: it is read, and a new file is begun). A key
is never shown: not by `repr`, an error, a log line. It is in this process's memory, which Python cannot clear.
"""

import os
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 8
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12
COUNTER_MAX: Final = (1 << 64) - 1

_ID_PURPOSE: Final = b"tokmesh key id"
_FILE_PURPOSE: Final = b"tokmesh file: "


class UnknownKey(Exception):
    """None of the keys has the id that a file names. `str()` is that id in hex."""

    def __init__(self, key_id: bytes) -> None:
        super().__init__(key_id.hex())
        self.key_id = key_id


class Opener:
    """Opens what the Sealer with the same key, salt and purpose has sealed."""

    __slots__ = ("_cipher", "key_id", "salt")

    def __init__(self, cipher: AESGCM, key_id: bytes, salt: bytes) -> None:
        self._cipher = cipher
        self.key_id = key_id
        self.salt = salt

    def open(self, counter: int, aad: bytes, sealed: bytes) -> bytes | None:
        """What was sealed; None when these are not, in every bit, the bytes of `seal` with this counter and aad."""
        try:
            return self._cipher.decrypt(_nonce(counter), sealed, aad)
        except InvalidTag:
            return None

    def __reduce__(self) -> NoReturn:
        raise TypeError("holds a key")


class Sealer(Opener):
    """Seals the pieces of one file. counter: of a piece, greater than those before it; the first may be 0."""

    __slots__ = ("_counter_due",)

    def __init__(self, cipher: AESGCM, key_id: bytes, salt: bytes) -> None:
        super().__init__(cipher, key_id, salt)
        self._counter_due = 0

    def seal(self, counter: int, aad: bytes, plaintext: bytes) -> bytes:
        """`plaintext` encrypted, `wal.TAG_BYTES` longer; the counter is used up, also when what follows fails."""
        assert self._counter_due <= counter <= COUNTER_MAX, "a nonce must not be used twice"
        self._counter_due = counter + 1
        return self._cipher.encrypt(_nonce(counter), plaintext, aad)


class KeySet:
    """The operator's keys in their order: the first seals, all open. Immutable: other keys are another set.

    keys: 1 at least, of KEY_BYTES each; random: gives that many random bytes, for salts."""

    __slots__ = ("_keys", "_random", "first_id")

    def __init__(self, keys: Iterable[bytes], random: Callable[[int], bytes] = os.urandom) -> None:
        self._keys: dict[bytes, bytes] = {}
        for key in keys:
            if len(key) != KEY_BYTES:
                raise ValueError(f"a key has {KEY_BYTES} bytes")
            self._keys.setdefault(_derive(key, b"", _ID_PURPOSE, KEY_ID_BYTES), key)
        if not self._keys:
            raise ValueError("there is no key")
        self._random = random
        self.first_id = next(iter(self._keys))

    @property
    def key_ids(self) -> tuple[bytes, ...]:
        """In the order of the keys."""
        return tuple(self._keys)

    def new_sealer(self, purpose: bytes) -> Sealer:
        """For one new file: under the first key, with a new salt. Its `salt` and `key_id` must be kept with the file."""
        salt = self._random(SALT_BYTES)
        return Sealer(self._cipher(self.first_id, salt, purpose), self.first_id, salt)

    def opener(self, key_id: bytes, salt: bytes, purpose: bytes) -> Opener:
        """For a file that says this id and salt. Raises UnknownKey."""
        if key_id not in self._keys:
            raise UnknownKey(key_id)
        return Opener(self._cipher(key_id, salt, purpose), key_id, salt)

    def _cipher(self, key_id: bytes, salt: bytes, purpose: bytes) -> AESGCM:
        assert len(salt) == SALT_BYTES
        return AESGCM(_derive(self._keys[key_id], salt, _FILE_PURPOSE + purpose, KEY_BYTES))

    def __repr__(self) -> str:
        return f"KeySet({', '.join(key_id.hex() for key_id in self._keys)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("holds keys")


def _derive(key: bytes, salt: bytes, purpose: bytes, size: int) -> bytes:
    return HKDF(SHA256(), size, salt, purpose).derive(key)


def _nonce(counter: int) -> bytes:
    return counter.to_bytes(NONCE_BYTES, "big")
