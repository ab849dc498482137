"""What is decided but not yet applied: places and tokens that are spoken for, and whose turn it is to write a session.

A decision sees the table plus these. Everything here lives on the loop's thread, belongs to proposals in flight, and is
released by whoever took it when the proposal is applied or refused.
"""

import asyncio
from collections import deque
from collections.abc import Sequence, Set
from typing import Final

from tokmesh.errors import ApiError

WAITERS_PER_SESSION_MAX: Final = 256
_NONE: Final[frozenset[bytes]] = frozenset()


class Reservations:
    """What proposals in flight hold: tokens (by hash), and of each user the sessions that begin (oldest first) and those that make
    room for them. Bounded by the log's own queue."""

    __slots__ = ("_creating", "_evicting", "_tokens")

    def __init__(self) -> None:
        # A user is a key while there is something.
        self._creating: dict[str, list[bytes]] = {}
        self._evicting: dict[str, set[bytes]] = {}
        self._tokens: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._tokens) + sum(map(len, self._creating.values())) + sum(map(len, self._evicting.values()))

    def creating(self, user_id: str) -> Sequence[bytes]:
        """The user's sessions that begin, oldest first. Not to be changed by the caller."""
        return self._creating.get(user_id, ())

    def evicting(self, user_id: str) -> Set[bytes]:
        """The user's sessions that make room for those. Not to be changed by the caller."""
        return self._evicting.get(user_id, _NONE)

    def holds_token(self, token_hash: bytes) -> bool:
        """Whether a proposal in flight brings this token."""
        return token_hash in self._tokens

    def take(self, user_id: str, session_id: bytes, evicts: tuple[bytes, ...], token_hash: bytes | None) -> None:
        """Reserves a place for `session_id`, the sessions it evicts, and, where given, a token; pair it with `release`."""
        creating = self._creating.get(user_id)
        if creating is None:
            self._creating[user_id] = [session_id]
        else:
            creating.append(session_id)
        if evicts:
            self._evicting.setdefault(user_id, set()).update(evicts)
        if token_hash is not None:
            self._tokens.add(token_hash)

    def release(self, user_id: str, session_id: bytes, evicts: tuple[bytes, ...], token_hash: bytes | None) -> None:
        """Gives back exactly what `take` reserved."""
        creating = self._creating[user_id]
        creating.remove(session_id)
        if not creating:
            del self._creating[user_id]
        if evicts:
            evicting = self._evicting[user_id]
            evicting.difference_update(evicts)
            if not evicting:
                del self._evicting[user_id]
        if token_hash is not None:
            self._tokens.discard(token_hash)


class WriteTurns:
    """Turns to write a session: one proposal at a time for each, the others wait in line and decide anew when it is theirs."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        # A session is a key while somebody has its turn; the line is made when a second one comes.
        self._lines: dict[bytes, deque[asyncio.Future[None]] | None] = {}

    def __len__(self) -> int:
        return len(self._lines)

    async def enter(self, session_id: bytes) -> None:
        """Returns when the turn is the caller's, who must `leave`. Raises TM-SYS-5030 when 256 wait already."""
        lines = self._lines
        if session_id not in lines:
            lines[session_id] = None
            return
        line = lines[session_id]
        if line is None:
            line = lines[session_id] = deque()
        if len(line) >= WAITERS_PER_SESSION_MAX:
            raise ApiError("TM-SYS-5030", {"reason": "session_busy"})
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            await turn
        except BaseException:
            # Given up while waiting; a turn that was handed over in the same moment goes on to the next in line.
            if turn.done() and not turn.cancelled():
                self.leave(session_id)
            turn.cancel()
            raise

    def leave(self, session_id: bytes) -> None:
        """Ends the caller's turn; the first in line that still waits has it next."""
        line = self._lines[session_id]
        while line:
            turn = line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._lines[session_id]
