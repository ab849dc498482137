"""What is decided but not yet applied: places and tokens that are spoken for, and whose turn it is to write a session.

A decision sees the table plus these. Everything here lives on the loop's thread, belongs to proposals in flight, and is
released by whoever took it when the proposal is applied or refused.
"""

import asyncio
from collections import deque
from typing import Final

from tokmesh.errors import ApiError

WAITERS_PER_SESSION_MAX: Final = 256


class UserReservations:
    """One user's proposals in flight: sessions that begin (oldest first) and sessions that make room for them."""

    __slots__ = ("creating", "evicting")

    def __init__(self) -> None:
        self.creating: list[bytes] = []
        self.evicting: set[bytes] = set()


class Reservations:
    """Tokens (by hash) and places in users' quotas that proposals in flight hold. Bounded by the log's own queue."""

    __slots__ = ("_tokens", "_users")

    def __init__(self) -> None:
        self._tokens: set[bytes] = set()
        self._users: dict[str, UserReservations] = {}

    def __len__(self) -> int:
        return len(self._tokens) + sum(len(held.creating) + len(held.evicting) for held in self._users.values())

    def of_user(self, user_id: str) -> UserReservations | None:
        """What is in flight for the user; None for nothing. Not to be changed by the caller."""
        return self._users.get(user_id)

    def holds_token(self, token_hash: bytes) -> bool:
        """Whether a proposal in flight brings this token."""
        return token_hash in self._tokens

    def take(self, user_id: str, session_id: bytes, evicts: tuple[bytes, ...], token_hash: bytes | None) -> None:
        """Reserves a place for `session_id`, the sessions it evicts, and, where given, a token; pair it with `release`."""
        held = self._users.get(user_id)
        if held is None:
            held = self._users[user_id] = UserReservations()
        held.creating.append(session_id)
        if evicts:
            held.evicting.update(evicts)
        if token_hash is not None:
            self._tokens.add(token_hash)

    def release(self, user_id: str, session_id: bytes, evicts: tuple[bytes, ...], token_hash: bytes | None) -> None:
        """Gives back exactly what `take` reserved."""
        held = self._users[user_id]
        held.creating.remove(session_id)
        if evicts:
            held.evicting.difference_update(evicts)
        if not held.creating:
            # An eviction belongs to a creation: with the last of these gone, nothing is left.
            del self._users[user_id]
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
