"""Identifiers and credentials: making, parsing, folding, hashing, redacting (contract §1).

Public identifiers are ULIDs behind a type and a dash (`tmss-`, `tmak-`), 16 bytes inside the server, 26 lower-case Crockford
characters outside; input is folded to lower case. Secrets are 32 random bytes behind a type and an underscore (`tmtk_`,
`tmas_`); their case is kept, and a token is known inside only by its SHA-256. ULIDs of one source strictly increase, also
within a millisecond and when the clock stands still.

Randomness comes from a RandomSource, which reads the kernel's in blocks and hands every byte out once.
"""

import os
import re
import weakref
from collections.abc import Callable
from typing import Final

from tokmesh._core.digest import sha256_of_text
from tokmesh._core.encoding import is_token_text, token_text, ulid_text

SESSION_ID_PREFIX: Final = "tmss-"
KEY_ID_PREFIX: Final = "tmak-"
TOKEN_PREFIX: Final = "tmtk_"
SECRET_PREFIX: Final = "tmas_"
ULID_BYTES: Final = 16
TOKEN_CHARS: Final = len(TOKEN_PREFIX) + 43
SECRET_CHARS: Final = len(SECRET_PREFIX) + 43
REDACTED: Final = "[redacted]"

_RANDOM_BLOCK_BYTES: Final = 4096
_CROCKFORD: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CROCKFORD_TO_INT_32: Final = str.maketrans(_CROCKFORD, "0123456789abcdefghijklmnopqrstuv")

# The first of 26 characters carries three bits only: a larger one does not fit 16 bytes.
_SESSION_ID: Final = re.compile(r"tmss-[0-7][0-9a-hjkmnp-tv-z]{25}", re.ASCII)
_KEY_ID: Final = re.compile(r"tmak-[0-7][0-9a-hjkmnp-tv-z]{25}", re.ASCII)
_SECRET: Final = re.compile(r"tmas_[A-Za-z0-9]{43}", re.ASCII)
# Whatever starts like a secret, whole or cut, in any case, also with the underscore escaped by a URL or by JSON.
_SECRET_LIKE: Final = re.compile(r"(tm(?:tk|as)(?:_|%5f|\\u005f))[A-Za-z0-9_%-]+", re.IGNORECASE | re.ASCII)


class RandomSource:
    """Random bytes, read from `read` (the kernel by default) a block at a time; no byte is handed out twice.

    A forked child drops the block it inherited, so that parent and child never share a byte.
    """

    __slots__ = ("__weakref__", "_block", "_position", "_read")

    def __init__(self, read: Callable[[int], bytes] = os.urandom) -> None:
        self._read = read
        self._block = b""
        self._position = 0
        drop = weakref.WeakMethod(self._drop)
        os.register_at_fork(after_in_child=lambda: (method := drop()) and method())

    def take(self, size: int) -> bytes:
        """`size` fresh random bytes, 0 ≤ size ≤ 4096."""
        end = self._position + size
        if end > len(self._block):
            self._block = self._read(_RANDOM_BLOCK_BYTES)
            self._position, end = 0, size
        taken = self._block[self._position : end]
        self._position = end
        return taken

    def _drop(self) -> None:
        self._block = b""
        self._position = 0


class UlidSource:
    """Makes ULIDs: 48 bits of Unix ms, 80 bits random, each greater than the one before.

    Within one millisecond, or when `now_ms` goes back, the next value is the last one plus a random step of 1..2**32, so
    that a public id still says little about its neighbours.
    """

    __slots__ = ("_last", "_last_ms", "_random")

    def __init__(self, random: RandomSource) -> None:
        self._random = random
        self._last = 0
        self._last_ms = -1

    def make(self, now_ms: int) -> bytes:
        """The next ULID as 16 bytes; `now_ms` is Unix ms."""
        if now_ms > self._last_ms:
            value = (now_ms << 80) | int.from_bytes(self._random.take(10), "big")
        else:
            # A carry out of the random part moves the time on by a millisecond: still in order.
            value = self._last + 1 + int.from_bytes(self._random.take(4), "big")
        self._last_ms = value >> 80
        self._last = value
        return value.to_bytes(ULID_BYTES, "big")


def format_ulid(raw: bytes) -> str:
    """16 bytes → 26 lower-case characters."""
    return ulid_text(raw)


def format_session_id(raw: bytes) -> str:
    """16 bytes → `tmss-…`."""
    return SESSION_ID_PREFIX + format_ulid(raw)


def format_key_id(raw: bytes) -> str:
    """16 bytes → `tmak-…`."""
    return KEY_ID_PREFIX + format_ulid(raw)


def _parse(pattern: re.Pattern[str], text: str) -> bytes | None:
    # Folding is for ASCII only: str.lower() would make a plain k of the Kelvin sign.
    folded = text.lower() if text.isascii() else ""
    if pattern.fullmatch(folded) is None:
        return None
    return int(folded[5:].translate(_CROCKFORD_TO_INT_32), 32).to_bytes(ULID_BYTES, "big")


def parse_session_id(text: str) -> bytes | None:
    """`tmss-…` in any case → 16 bytes; None when malformed."""
    return _parse(_SESSION_ID, text)


def parse_key_id(text: str) -> bytes | None:
    """`tmak-…` in any case → 16 bytes; None when malformed."""
    return _parse(_KEY_ID, text)


def new_token(random: RandomSource) -> str:
    """A new session token: `tmtk_` and 43 base64url characters of 32 random bytes."""
    return token_text(random.take(32))


def is_token(text: str) -> bool:
    """Whether `text` has a token's form.

    All 43 characters are free: the two bits that the last one carries beyond 32 bytes are not looked at, since a token is
    its characters (the hash covers them all) and a client may bring its own.
    """
    return is_token_text(text)


def token_hash(token: str) -> bytes:
    """SHA-256 of the whole token, 32 bytes: the only form of a token that is ever stored."""
    return sha256_of_text(token)


def new_secret(random: RandomSource) -> str:
    """A new API secret: `tmas_` and 43 base62 characters of 32 random bytes (62**43 > 2**256)."""
    number = int.from_bytes(random.take(32), "big")
    characters = []
    for _ in range(43):
        number, digit = divmod(number, 62)
        characters.append(_BASE62[digit])
    return SECRET_PREFIX + "".join(reversed(characters))


def is_secret(text: str) -> bool:
    """Whether `text` has an API secret's form."""
    return _SECRET.fullmatch(text) is not None


def redact(text: str) -> str:
    """`text` with everything replaced that looks like a token or an API secret, whole or cut; the type stays readable."""
    return _SECRET_LIKE.sub(r"\g<1>" + REDACTED, text)
