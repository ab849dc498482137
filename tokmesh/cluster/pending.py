"""Proposals to the stream that are under way: each is one statement or several, and done when all of them are.

Invariant: a part is settled once; its proposal has as many parts as are not settled yet.
"""

from tokmesh.cluster.statement import Statement
from tokmesh.errors import ApiError
from tokmesh.log.interface import Proposal


class Pending:
    """A proposal under way. parts: statements that are not everywhere yet; outcome: of the first, or, summed, of all so far."""

    __slots__ = ("error", "future", "outcome", "parts", "summed")

    def __init__(self, future: Proposal, parts: int, summed: bool) -> None:
        self.future = future
        self.parts = parts
        self.summed = summed
        self.outcome = 0
        self.error: ApiError | None = None


class Part:
    """One statement of a proposal. first: its outcome is the proposal's."""

    __slots__ = ("came_back", "deadline_ns", "first", "number", "outcome", "pending", "revokes", "sequence", "settled")

    def __init__(self, number: int, pending: Pending, first: bool, default: int, deadline_ns: int) -> None:
        self.number = number
        self.deadline_ns = deadline_ns
        self.pending = pending
        self.first = first
        self.came_back = False
        self.revokes: Statement | None = None  # of a session's end
        self.outcome = default
        self.sequence = 0
        self.settled = False

    def __lt__(self, other: "Part") -> bool:
        return self.sequence < other.sequence
