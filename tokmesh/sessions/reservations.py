"""What is decided but not yet applied: places and tokens that are spoken for, and whose turn it is to write a session.

A decision sees the table plus these. Everything here lives on the loop's thread, belongs to proposals in flight, and is
released by whoever took it when the proposal is applied or refused.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Set
from typing import Final

from tokmesh.errors import ApiError

WAITERS_PER_SESSION_MAX: Final = 256
_NONE: Final[frozenset[bytes]] = frozenset()


class Reservations:
    """What proposals in flight hold: tokens (by hash), and of each user the sessions that begin, oldest first, with those that make
    room for each. Bounded by the log's own queue."""

    __slots__ = ("_by_user", "_tokens")

    def __init__(self) -> None:
        self._by_user: dict[str, dict[bytes, tuple[bytes, ...]]] = {}  # a user is a key while there is something
        self._tokens: set[bytes] = set()

    def __len__(self) -> int:
        begun = (1 + len(evicts) for of_user in self._by_user.values() for evicts in of_user.values())
        return len(self._tokens) + sum(begun)

    def creating(self, user_id: str) -> Collection[bytes]:
        """The user's sessions that begin, oldest first. Not to be changed by the caller, nor kept."""
        return self._by_user.get(user_id, ())

    def evicting(self, user_id: str) -> Set[bytes]:
        """The user's sessions that make room for those."""
        of_user = self._by_user.get(user_id)
        return _NONE if of_user is None else frozenset().union(*of_user.values())

    def room_for(self, user_id: str, session_ids: Iterable[bytes]) -> Set[bytes]:
        """Those that make room for these of the user's sessions, of which some may begin."""
        of_user = self._by_user.get(user_id)
        return _NONE if of_user is None else frozenset().union(*(of_user.get(each, ()) for each in session_ids))

    def holds_token(self, token_hash: bytes) -> bool:
        """Whether a proposal in flight brings this token."""
        return token_hash in self._tokens

    def take(self, user_id: str, session_id: bytes, evicts: tuple[bytes, ...], token_hash: bytes | None) -> None:
        """Reserves a place for `session_id`, the sessions it evicts, and, where given, a token; pair it with `release`."""
        of_user = self._by_user.get(user_id)
        if of_user is None:
            self._by_user[user_id] = {session_id: evicts}
        else:
            of_user[session_id] = evicts
        if token_hash is not None:
            self._tokens.add(token_hash)

    def release(self, user_id: str, session_id: bytes, token_hash: bytes | None) -> None:
        """Gives back what `take` reserved for `session_id`, and the token."""
        of_user = self._by_user[user_id]
        del of_user[session_id]
        if not of_user:
            del self._by_user[user_id]
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
