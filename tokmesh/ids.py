"""Identifiers and credentials: making, parsing, folding, hashing, redacting (docs/api.md, "Identifiers").

Public identifiers are ULIDs behind a type and a dash (`tmss-`, `tmak-`), 16 bytes inside the server, 26 lower-case Crockford
characters outside; input is folded to lower case. Secrets are 32 random bytes behind a type and an underscore (`tmtk_`,
`tmas_`); their case is kept, and a token is known inside only by its SHA-256. ULIDs of one source strictly increase, also
within a millisecond and when the clock stands still.

Randomness comes from a RandomSource, which reads the kernel's in blocks and hands every byte out once. What every session that
begins needs is made in the core; this file is where the rest of the server finds all of it.
"""

import re
from typing import Final

from tokmesh._core.digest import sha256_of_text as token_hash
from tokmesh._core.encoding import is_token_text as is_token
from tokmesh._core.encoding import new_token, new_token_of
from tokmesh._core.encoding import session_id_text as format_session_id
from tokmesh._core.encoding import ulid_text as format_ulid
from tokmesh._core.random_source import RandomSource
from tokmesh._core.ulid_source import UlidSource

__all__ = [
    "ALL_SHARDS",
    "MEMBERS_MAX",
    "REDACTED",
    "SHARDS",
    "RandomSource",
    "UlidSource",
    "format_key_id",
    "format_session_id",
    "format_ulid",
    "is_node_id",
    "is_secret",
    "is_token",
    "new_secret",
    "new_token",
    "new_token_of",
    "parse_key_id",
    "parse_session_id",
    "redact",
    "shard_of",
    "shards_in",
    "token_hash",
]

KEY_ID_PREFIX: Final = "tmak-"
SECRET_PREFIX: Final = "tmas_"
ULID_BYTES: Final = 16
SHARDS: Final = 64
ALL_SHARDS: Final = (1 << SHARDS) - 1  # bits
MEMBERS_MAX: Final = 64  # of a cluster
REDACTED: Final = "[redacted]"

_CROCKFORD: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CROCKFORD_TO_INT_32: Final = str.maketrans(_CROCKFORD, "0123456789abcdefghijklmnopqrstuv")

# The first of 26 characters carries three bits only: a larger one does not fit 16 bytes.
_SESSION_ID: Final = re.compile(r"tmss-[0-7][0-9a-hjkmnp-tv-z]{25}", re.ASCII)
_KEY_ID: Final = re.compile(r"tmak-[0-7][0-9a-hjkmnp-tv-z]{25}", re.ASCII)
_NODE_ID: Final = re.compile(r"tmnd-[a-z0-9-]{1,58}", re.ASCII)
_SECRET: Final = re.compile(r"tmas_[A-Za-z0-9]{43}", re.ASCII)
# Whatever starts like a secret, whole or cut, in any case, also with the underscore escaped by a URL or by JSON.
_SECRET_LIKE: Final = re.compile(r"(tm(?:tk|as)(?:_|%5f|\\u005f))[A-Za-z0-9_%-]+", re.IGNORECASE | re.ASCII)


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


def is_node_id(value: object) -> bool:
    """Whether it has the form of a node's id."""
    return isinstance(value, str) and _NODE_ID.fullmatch(value) is not None


def shard_of(raw: bytes) -> int:
    """The shard, 0..63, of a session (16-byte id) or of a token (32-byte hash): as the table counts them (_core/layout.pxd)."""
    return raw[-1] % SHARDS


def shards_in(bits: int) -> list[int]:
    """The shards whose bits are set."""
    return [shard for shard in range(SHARDS) if bits >> shard & 1]


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
