"""A survey of the API keys at one moment: the sum of their hashes, taken piece by piece while keys go on being made and switched.
Two rings that were made of the same records, in whatever order, have the same sum.

What is hashed of a key is all that the records of the stream say of it: the record that made it, and whether it is enabled. When a
key was last used, what is left of its rate and which grants it gave are a node's own. Nothing of a key but its being enabled ever
changes, so that this is what is noted at the moment; a key that begins later is none of the survey.

Sums wrap at 2^64, and every survey has another key of hashing, as in _core/survey.pyx.
"""

from hashlib import blake2b
from typing import Final

from tokmesh.keyring import KeyRing

_SUM_BYTES: Final = 8
_SUM_MASK: Final = 2**64 - 1


class KeySurvey:
    """hash_key: the same for all who compare, 16 bytes. The moment is that of the making."""

    def __init__(self, keyring: KeyRing, hash_key: bytes) -> None:
        self._hash_key = hash_key
        self._left = [(stored, stored.api_key.active) for stored in keyring.all()]
        self._sum = 0

    def step(self, budget: int) -> int | None:
        """Looks at `budget` more keys. None while there are more, else the sum."""
        for stored, active in self._left[-budget:]:
            stated = stored.created_record().encode() + bytes((active,))
            digest = blake2b(stated, key=self._hash_key, digest_size=_SUM_BYTES).digest()
            self._sum = (self._sum + int.from_bytes(digest, "little")) & _SUM_MASK
        del self._left[-budget:]
        return None if self._left else self._sum
