"""Changes of the cluster as this node sees them, told in its log: one line each, once."""

import logging
from collections.abc import Iterable
from typing import Final, Protocol

logger: Final = logging.getLogger("tokmesh.cluster")


class Member(Protocol):
    @property
    def node_id(self) -> str: ...
    @property
    def state(self) -> str: ...


UNHEARD_NOTES: Final = 20  # two seconds, as for one that falls silent


class Changes:
    """Begins with everything well. A member that was not heard yet is given UNHEARD_NOTES until that is told: one that has just
    joined is known by the stream before its next beat comes."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._unheard: dict[str, int] = {}
        self._quorum_lost = self._fenced = False

    def note(self, members: Iterable[Member], *, quorum_lost: bool, fenced: bool) -> None:
        """How it is now. fenced: this node answers nothing about sessions."""
        states = {member.node_id: member.state for member in members}
        new = (node_id for node_id, state in states.items() if state == "down" and node_id not in self._states)
        self._unheard = {node_id: self._unheard.get(node_id, 0) + 1 for node_id in new}
        for node_id, times in self._unheard.items():
            if times < UNHEARD_NOTES:
                del states[node_id]
        for node_id in sorted(states.keys() | self._states.keys()):
            self._tell_member(node_id, self._states.get(node_id), states.get(node_id))
        if quorum_lost != self._quorum_lost:
            if quorum_lost:
                logger.warning("no quorum: writes are refused")
            else:
                logger.info("quorum again: writes are taken")
        if fenced != self._fenced:
            if fenced:
                logger.warning("this node is not proved current: it answers nothing about sessions")
            else:
                logger.info("this node is current again: it answers")
        self._states, self._quorum_lost, self._fenced = states, quorum_lost, fenced

    def _tell_member(self, node_id: str, before: str | None, now: str | None) -> None:
        if before == now:
            return
        if now is None:
            logger.warning("a node is no member any more", extra={"node_id": node_id})
        elif now == "down":
            logger.warning("a node cannot be heard", extra={"node_id": node_id})
        else:
            words = "a node is a member" if before is None else "a node is heard again"
            logger.info(words, extra={"node_id": node_id})
