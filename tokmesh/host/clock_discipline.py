"""Does something keep the host's clock right? The kernel knows: adjtimex(2)."""

import ctypes
from typing import Final

_TIMEX_BYTES: Final = 256  # struct timex has 208 on 64-bit Linux
_TIME_ERROR: Final = 5  # the state of a clock that nothing disciplines, or not well enough


def clock_synchronised() -> bool | None:
    """Whether the kernel takes its clock for synchronised; None where it does not say (no such call, or forbidden)."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    state: int = adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))  # all zeros: modes 0, which only reads
    return None if state < 0 else state != _TIME_ERROR
