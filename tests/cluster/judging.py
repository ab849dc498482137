"""What a cluster must look like when a fault is over: all nodes tell the same of every session, and its history explains that.

"Lost" is anything else: an acknowledged change that is missing, a refused one that is there, a revocation undone.
"""

import time
from collections import Counter
from typing import Any, Final

from tests.cluster.history import Operation, State, explain, shown
from tests.cluster.load import Book, Session
from tests.support.cluster import Cluster
from tests.support.rounds import Lost
from tests.support.waiting import wait_until

BATCH_TOKENS: Final = 1000
AGREE_TIMEOUT_S: Final = 30.0


def observe(cluster: Cluster, node: int, sessions: list[Session]) -> dict[str, State]:
    """Every session as that node has it, by its id. Raises AssertionError where it does not answer."""
    tokens = [(session, token) for session in sessions for token in session.tokens]
    found: dict[str, State] = {}
    for start in range(0, len(tokens), BATCH_TOKENS):
        batch = tokens[start : start + BATCH_TOKENS]
        status, told = cluster.ask(node, "POST", "/tokens/validate/batch", {"tokens": [token for _, token in batch]})
        assert status == 200, told
        for (session, token), verdict in zip(batch, told["results"], strict=True):
            if verdict["valid"]:
                if session.session_id in found:
                    raise Lost(f"two tokens of {session.session_id} are good on node {node}, and none had a grace")
                found[session.session_id] = _state(verdict["session"], token)
    for session in sessions:
        if session.session_id not in found:
            status, told = cluster.ask(node, "GET", f"/sessions/{session.session_id}")
            assert status in (200, 404), told
            found[session.session_id] = State(revoked=True) if status == 404 else _state(told["session"], None)
    return found


def _state(session: dict[str, Any], token: str | None) -> State:
    return State(session["version"], session["data"]["mark"], token, session["expires_at"])


def agreed(cluster: Cluster, sessions: list[Session]) -> dict[str, State]:
    """What all nodes tell, once they tell the same. Lost when they never do."""
    deadline = time.monotonic() + AGREE_TIMEOUT_S
    while True:
        views = [observe(cluster, node, sessions) for node in range(len(cluster.nodes))]
        if all(view == views[0] for view in views):
            return views[0]
        if time.monotonic() >= deadline:
            told = [
                f"{each.session_id}: {[view[each.session_id] for view in views]}"
                for each in sessions
                if len({view[each.session_id] for view in views}) > 1
            ]
            raise Lost(f"{len(told)} sessions are not the same on all nodes: {told[0]}")
        time.sleep(0.2)


def judge(cluster: Cluster, book: Book) -> Counter[str]:
    """Compares all that was told with what is; "sessions", "operations", "open" ones. Lost."""
    totals: Counter[str] = Counter()
    asked_ns = time.monotonic_ns()
    for session_id, state in agreed(cluster, book.sessions).items():
        session = next(each for each in book.sessions if each.session_id == session_id)
        history = [*session.history, Operation("read", asked_ns, time.monotonic_ns(), told=state, by="all nodes")]
        if explain(history, session.begun) is None:
            raise Lost(f"no order explains {session_id}:\n{shown(history, session.begun)}")
        totals["sessions"] += 1
        totals["operations"] += len(session.history)
        totals["open"] += sum(each.answered_ns is None for each in session.history)
    return totals


def wait_writes(cluster: Cluster, timeout_s: float = 60.0) -> float:
    """Until every node takes a write; how many seconds that took."""
    started_s = time.monotonic()
    for node in range(len(cluster.nodes)):

        def takes(node: int = node) -> bool:
            try:
                return cluster.ask(node, "POST", "/sessions", {"user_id": "probe", "ttl_seconds": 1})[0] == 200
            except OSError:
                return False

        wait_until(takes, f"node {node} takes writes", timeout_s)
    return time.monotonic() - started_s
