"""What a test does less of when the core runs under the sanitizers, where all is several times slower.

They look for accesses outside of memory, and a place in a file is read by the same code whichever of its bits is wrong; that no bit
passes unnoticed is shown by the plain run, which takes all of them.
"""

import os
from collections.abc import Iterator
from typing import Final

# A bit of each place in a byte comes up, and every byte but one in eight.
_BITS_APART: Final = 7


def bits_of(data: bytes) -> Iterator[int]:
    """Numbers of the bits to flip, one after the other: all of them, under the sanitizers one in seven."""
    step = _BITS_APART if os.environ.get("TOKMESH_BUILD") == "asan" else 1
    return iter(range(0, len(data) * 8, step))
