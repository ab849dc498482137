"""Histories of one session, and whether they are linearizable: as if each write had happened at one moment between its request and
its answer, one after the other.

An operation without an answer, or answered 503, may have happened at any time since, or never; one that was refused (409, 404) must
not have. `explain` tries every order that the times allow, and remembers which set of operations it has been through with which
outcome: exhaustive, so meant for the short histories of single sessions (Wing and Gong, 1993, with Lowe's memory).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

OPERATIONS_MAX: Final = 400
NEVER_NS: Final = 2**63 - 1

Kind = Literal["renew", "update", "rotate", "revoke", "read"]


class State(NamedTuple):
    """A session. data, token: marks of the client's that name them; token None: one that nobody was told of; expires_at: None where
    nobody was told."""

    version: int = 1
    data: str = ""
    token: str | None = ""
    expires_at: int | None = None
    revoked: bool = False


@dataclass
class Operation:
    """What a client asked of one session and was told. Times are of one monotonic clock.

    kind: with `data` and `if_version` an update; with `token`, the one presented, a rotation. answered_ns: None: no answer, or one
    that leaves it open. told: of an update the version, of a renewal the new end, of a rotation the new token, of a read the state
    (its token is None where none of those that the client knows is good); None where there was no answer.
    """

    kind: Kind
    asked_ns: int
    answered_ns: int | None = None
    data: str = ""
    if_version: int | None = None
    token: str | None = None
    told: int | str | State | None = None
    by: str = ""

    def apply(self, state: State) -> State | None:
        """The state after it; None when it cannot have happened to that state with that answer."""
        if self.kind == "read":
            return state if self._agrees(state) else None
        if self.kind == "revoke":
            return state._replace(revoked=True)
        if state.revoked:
            return None
        changed = state._replace(version=state.version + 1)
        if self.kind == "renew":
            return changed._replace(expires_at=self.told if isinstance(self.told, int) else None)
        if self.kind == "rotate":
            if self.token != state.token:
                return None
            return changed._replace(token=self.told if isinstance(self.told, str) else None)
        if self.if_version not in (None, state.version) or self.told not in (None, changed.version):
            return None
        return changed._replace(data=self.data)

    def _agrees(self, state: State) -> bool:
        told = self.told
        assert isinstance(told, State)
        if told.revoked or state.revoked:
            return told.revoked == state.revoked
        same_end = state.expires_at in (None, told.expires_at)
        return same_end and told._replace(expires_at=None) == state._replace(expires_at=None)


def explain(operations: Iterable[Operation], begun: State) -> list[Operation] | None:
    """An order in which what was answered, and some of what was not, can have happened to a session that began as `begun`; None:
    there is none. Raises ValueError beyond OPERATIONS_MAX."""
    history = sorted(operations, key=lambda each: each.asked_ns)
    if len(history) > OPERATIONS_MAX:
        raise ValueError(f"{len(history)} operations, at most {OPERATIONS_MAX}")
    needed = sum(1 << index for index, each in enumerate(history) if each.answered_ns is not None)
    seen = {(0, begun)}
    order: list[int] = []
    # What is left to try at each depth: (done before, its state's followers).
    stack = [iter(_followers(history, 0, begun))]
    done_before = [0]
    while stack:  # ends: no (done, state) is entered twice
        if done_before[-1] & needed == needed:
            return [history[index] for index in order]
        for index, state in stack[-1]:
            done = done_before[-1] | 1 << index
            if (done, state) not in seen:
                seen.add((done, state))
                order.append(index)
                done_before.append(done)
                stack.append(iter(_followers(history, done, state)))
                break
        else:
            stack.pop()
            done_before.pop()
            if order:
                order.pop()
    return None


def _followers(history: Sequence[Operation], done: int, state: State) -> list[tuple[int, State]]:
    """What can have happened next: nothing that was asked after something else, which is not done, had been answered."""
    left = [(index, each) for index, each in enumerate(history) if not done >> index & 1]
    first_answer_ns = min((NEVER_NS if each.answered_ns is None else each.answered_ns for _, each in left), default=NEVER_NS)
    found = []
    for index, each in left:
        if each.asked_ns > first_answer_ns:
            break
        after = each.apply(state)
        if after is not None:
            found.append((index, after))
    # What was answered first is tried first: what was not is most often not needed.
    found.sort(key=lambda each: history[each[0]].answered_ns or NEVER_NS)
    return found


def shown(operations: Iterable[Operation], begun: State) -> str:
    """A history for people, in order of asking, in milliseconds since the first."""
    history = sorted(operations, key=lambda each: each.asked_ns)
    since_ns = history[0].asked_ns if history else 0
    lines = [f"began as {begun}"]
    for each in history:
        until = "    …    " if each.answered_ns is None else f"{(each.answered_ns - since_ns) / 1e6:9.1f}"
        asked = {"update": f"{each.data!r} if {each.if_version}", "rotate": f"{each.token!r}"}.get(each.kind, "")
        lines.append(f"{(each.asked_ns - since_ns) / 1e6:9.1f} {until} {each.by:12} {each.kind} {asked} → {each.told}")
    return "\n".join(lines)
