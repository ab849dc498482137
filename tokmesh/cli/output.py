"""What a command prints: standard output, with a failure to write that is told apart from every other.

Invariants: text that could not be written is an error of its own, TM-CLI-1001, and never a command that seems done; a reader that
went away is none (BrokenPipeError passes). What is left in the buffer then is dropped with `abandon`, or the interpreter would try
again at its end and fail there.
"""

import os
import sys
from errno import EBADF
from typing import Any, Final, TextIO

from tokmesh.errors import ApiError

_CLOSED: Final = OSError(EBADF, os.strerror(EBADF))


class Output:
    """Stands in for a text stream; None: the process was started without one."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As of the stream. TM-CLI-1001, BrokenPipeError."""
        if self._stream is None:
            raise _refusal(_CLOSED)
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _refusal(error) from error

    def flush(self) -> None:
        """As of the stream. TM-CLI-1001, BrokenPipeError."""
        try:
            if self._stream is not None:
                self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _refusal(error) from error


def abandon() -> None:
    """Makes the process's standard output lead nowhere: for when it has failed."""
    if sys.__stdout__ is not None:
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, sys.__stdout__.fileno())
        os.close(nowhere)


def _refusal(error: OSError) -> ApiError:
    return ApiError("TM-CLI-1001", {"reason": error.strerror})
