"""A write load on all nodes of a real cluster, and a book of what was asked and told: what the judges judge.

Clients write to sessions of their own and to a few that all share, each time by another node, and record every operation with the
times of its request and its answer. Readers ask every node all the time about tokens that have ended, and about some that have not;
what they are told is judged at once. Nobody here knows of faults: what does not answer is asked again.
"""

import http.client
import itertools
import json
import random
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, Final

from tests.cluster.history import Operation, State
from tests.support.cluster import Cluster
from tests.support.rounds import Lost

CLIENTS: Final = 4
SHARED: Final = 2  # sessions that all clients write to, at a time
OPERATIONS_MAX: Final = 40  # on one session
OPEN_MAX: Final = 2  # operations with an unknown outcome on one session: each doubles what the judge has to try
REQUEST_TIMEOUT_S: Final = 3.0
WRITE_PAUSE_S: Final = 0.01
READ_PAUSE_S: Final = 0.004
DOWN_PAUSE_S: Final = 0.05
WATCHED: Final = 400  # tokens of each kind that readers ask about
MAX_STALENESS_NS: Final = 2_000_000_000
WEIGHTS: Final = {"create": 3, "renew": 3, "update": 5, "rotate": 3, "revoke": 2, "revoke sync": 2}
REFUSALS: Final = {  # a definite no to a write that another one was faster than; anything else is a defect
    (409, "TM-SESS-4091"), (409, "TM-TOKN-4090"), (404, "TM-SESS-4040"),
    (401, "TM-TOKN-4010"), (401, "TM-TOKN-4011"), (401, "TM-TOKN-4012"),
}  # fmt: skip


@dataclass
class Session:
    """What is known of one session; `version`, `token`: the latest that a client was told."""

    session_id: str
    begun: State
    begun_ns: int  # when its creation was acknowledged
    history: list[Operation] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    version: int = 1
    token: str = ""
    open: int = 0  # operations whose outcome is unknown
    may_end: bool = False  # a revocation was asked for

    @property
    def is_usable(self) -> bool:
        return not self.may_end and self.open < OPEN_MAX and len(self.history) < OPERATIONS_MAX


@dataclass
class Watched:
    """A token that readers ask about. ended_ns: when its end was acknowledged; 0: it is good; sync: of the kind that waits."""

    session: Session
    token: str
    since_ns: int
    ended_ns: int = 0
    sync: bool = False
    may_end: bool = False


class Book:
    """What all clients and readers write down."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sessions: list[Session] = []
        self.shared: list[Session] = []
        self.ended: deque[Watched] = deque(maxlen=WATCHED)
        self.living: deque[Watched] = deque(maxlen=WATCHED)
        self.acknowledged: Counter[str] = Counter()
        self.acknowledged_ns: list[int] = []
        self.refused: Counter[tuple[int, str]] = Counter()
        self.unknown: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()
        self.failures: list[str] = []

    def watched(self, token: str) -> Watched | None:
        """Where a good token stands."""
        with self.lock:
            return next((each for each in self.living if each.token == token), None)

    def longest_pause_s(self, since_ns: int) -> float:
        """The longest time without any acknowledged write, from then to the last one."""
        times_ns = [since_ns, *(each for each in sorted(self.acknowledged_ns) if each > since_ns)]
        return max((after - before for before, after in itertools.pairwise(times_ns)), default=0) / 1e9


class Caller:
    """Connections of one thread to all nodes."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._connections: dict[int, tuple[int, http.client.HTTPConnection]] = {}
        self._headers = {"Authorization": f"Bearer {cluster.key}"}

    def ask(self, node: int, path: str, body: object) -> tuple[int, Any] | None:
        """Status and envelope; None: no answer. Raises ConnectionRefusedError where nothing can have been asked."""
        connection = self._connection(node)
        try:
            connection.request("POST", path, json.dumps(body), self._headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            self._connections.pop(node)[1].close()
            return None

    def _connection(self, node: int) -> http.client.HTTPConnection:
        server = self._cluster.nodes[node]
        known = self._connections.get(node)
        if known is not None and known[0] == server.port:
            return known[1]
        if known is not None:
            known[1].close()
            del self._connections[node]
        try:
            made = server.connect(REQUEST_TIMEOUT_S)
        except OSError as error:
            raise ConnectionRefusedError(str(error)) from None
        self._connections[node] = server.port, made
        return made

    def close(self) -> None:
        for _, connection in self._connections.values():
            connection.close()


class Client(threading.Thread):
    """One writer."""

    def __init__(self, cluster: Cluster, book: Book, number: int, seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True, name=f"client-{number}")
        self._cluster = cluster
        self._caller = Caller(cluster)
        self._book = book
        self._random = random.Random(seed)
        self._stop_asked = stop
        self._sent = 0
        self._own: list[Session] = []

    def run(self) -> None:
        while not self._stop_asked.is_set():
            try:
                self._step()
            except ConnectionRefusedError:
                time.sleep(DOWN_PAUSE_S)
            except Exception as error:
                self._book.failures.append(f"{self.name}: {type(error).__name__}: {error}")
                break
            time.sleep(WRITE_PAUSE_S)
        self._caller.close()

    def _step(self) -> None:
        self._own = [each for each in self._own if each.is_usable][-20:]
        with self._book.lock:
            shared = self._book.shared = [each for each in self._book.shared if each.is_usable]
        kind = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        node = self._random.randrange(len(self._cluster.nodes))
        if len(shared) < SHARED or not self._own or kind == "create":
            self._create(node, shared=len(shared) < SHARED)
            return
        session = self._random.choice(shared if self._random.random() < 0.5 else self._own)
        getattr(self, "_revoke" if kind.startswith("revoke") else f"_{kind}")(node, session, kind)

    def _create(self, node: int, shared: bool) -> None:
        self._sent += 1
        data = f"{self.name}-{self._sent}"
        body = {"user_id": data, "data": {"mark": data}, "ttl_seconds": 3600}
        made = self._told(self._caller.ask(node, "/sessions", body), "create")
        if made is None:
            return
        now_ns = time.monotonic_ns()
        token = made["token"]
        session = Session(made["session_id"], State(1, data, token, made["expires_at"]), now_ns, tokens=[token], token=token)
        with self._book.lock:
            self._book.sessions.append(session)
            self._book.living.append(Watched(session, token, now_ns))
            if shared:
                self._book.shared.append(session)
            else:
                self._own.append(session)

    def _told(self, answer: tuple[int, Any] | None, kind: str) -> dict[str, Any] | None:
        """`data` of an acknowledgement; None: unknown. Raises _Refused."""
        with self._book.lock:
            if answer is None or answer[0] == 503:
                self._book.unknown["no answer" if answer is None else str(answer[1]["code"])] += 1
                return None
            status, told = answer
            if status != 200:
                self._book.refused[status, told["code"]] += 1
                raise _Refused(status, told["code"])
            self._book.acknowledged[kind] += 1
            self._book.acknowledged_ns.append(time.monotonic_ns())
        found: dict[str, Any] = told["data"]
        return found

    def _change(
        self, node: int, session: Session, operation: Operation, path: str, body: object, kind: str
    ) -> dict[str, Any] | None:
        operation.by = f"{self.name}@{node}"
        operation.asked_ns = time.monotonic_ns()
        try:
            answer = self._caller.ask(node, path, body)
            told = self._told(answer, kind)
        except _Refused as refusal:
            if refusal.args not in REFUSALS:
                raise
            return None
        if told is not None:
            operation.answered_ns = time.monotonic_ns()
        with self._book.lock:
            session.open += told is None
            session.history.append(operation)
        return told

    def _renew(self, node: int, session: Session, kind: str) -> None:
        operation = Operation("renew", 0)
        ttl_s = self._random.randrange(3600, 7200)
        made = self._change(node, session, operation, f"/sessions/{session.session_id}/renew", {"ttl_seconds": ttl_s}, kind)
        if made is not None:
            operation.told = made["new_expires_at"]

    def _update(self, node: int, session: Session, kind: str) -> None:
        self._sent += 1
        mark = f"{self.name}-{self._sent}"
        if_version = session.version if self._random.random() < 0.7 else None
        operation = Operation("update", 0, data=mark, if_version=if_version)
        body = {"data": {"mark": mark}, **({} if if_version is None else {"if_version": if_version})}
        made = self._change(node, session, operation, f"/sessions/{session.session_id}/update", body, kind)
        if made is not None:
            operation.told = made["version"]
            session.version = max(session.version, made["version"])
        elif self._random.random() < 0.5:
            session.version += 1  # others have changed it: which version it has is tried

    def _rotate(self, node: int, session: Session, kind: str) -> None:
        token = session.token
        operation = Operation("rotate", 0, token=token)
        watched = self._book.watched(token)
        if watched is not None:
            watched.may_end = True
        made = self._change(node, session, operation, "/tokens/rotate", {"token": token}, kind)
        if made is None:
            return
        now_ns = time.monotonic_ns()
        operation.told = session.token = made["token"]
        with self._book.lock:
            session.tokens.append(made["token"])
            self._book.ended.append(Watched(session, token, now_ns, now_ns))
            self._book.living.append(Watched(session, made["token"], now_ns))

    def _revoke(self, node: int, session: Session, kind: str) -> None:
        session.may_end = True
        sync = kind == "revoke sync"
        body = {"sync": True} if sync else {}
        made = self._change(node, session, Operation("revoke", 0), f"/sessions/{session.session_id}/revoke", body, kind)
        if made is None:
            return
        now_ns = time.monotonic_ns()
        with self._book.lock:
            self._book.ended += [Watched(session, token, now_ns, now_ns, sync) for token in session.tokens]


class _Refused(Exception):
    """A definite no: (status, code)."""


class Reader(threading.Thread):
    """Asks one node about tokens, and judges what it says."""

    def __init__(self, cluster: Cluster, book: Book, node: int, seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True, name=f"reader-{node}")
        self._caller = Caller(cluster)
        self._node = node
        self._book = book
        self._random = random.Random(seed)
        self._stop_asked = stop

    def run(self) -> None:
        while not self._stop_asked.is_set():
            try:
                self._step()
            except ConnectionRefusedError:
                time.sleep(DOWN_PAUSE_S)
            except Exception as error:
                self._book.failures.append(f"{self.name}: {type(error).__name__}: {error}")
                break
            time.sleep(READ_PAUSE_S)
        self._caller.close()

    def _choose(self) -> Watched | None:
        """A token, of the newest above all: what goes wrong does so soon after."""
        with self._book.lock:
            kinds = [each for each in (self._book.ended, self._book.living) if each]
            if not kinds:
                return None
            watched = self._random.choice(kinds)
            return watched[-1 - min(int(self._random.expovariate(0.2)), len(watched) - 1)]

    def _step(self) -> None:
        chosen = self._choose()
        if chosen is None:
            return
        asked_ns = time.monotonic_ns()
        answer = self._caller.ask(self._node, "/tokens/validate", {"token": chosen.token})
        if answer is None or answer[0] == 503:
            self._book.verdicts["none"] += 1
            return
        status, told = answer
        if status != 200:
            raise Lost(f"validate on node {self._node}: {status} {told}")
        said_yes = told["data"]["valid"]
        self._book.verdicts["yes" if said_yes else "no"] += 1
        if chosen.ended_ns and said_yes:
            allowed_ns = 0 if chosen.sync else MAX_STALENESS_NS
            late_ns = asked_ns - chosen.ended_ns - allowed_ns
            if late_ns > 0:
                raise Lost(
                    f"node {self._node} said yes to a token that ended by an acknowledged "
                    f"{'sync ' if chosen.sync else ''}change; asked {late_ns / 1e6:.0f} ms after it must not"
                )
        if not chosen.ended_ns and not said_yes and not (chosen.may_end or chosen.session.may_end):
            late_ns = asked_ns - chosen.since_ns - MAX_STALENESS_NS
            if late_ns > 0:
                raise Lost(f"node {self._node} said {told['data']} to a good token, {late_ns / 1e6:.0f} ms after it must know it")


class Load:
    """Clients and readers on a cluster, from `start` to `finish`; `book`: what they wrote down."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.book = Book()
        self._stop = threading.Event()
        clients = [Client(cluster, self.book, number, seed * 100 + number, self._stop) for number in range(CLIENTS)]
        readers = [Reader(cluster, self.book, node, seed * 100 + 50 + node, self._stop) for node in range(len(cluster.nodes))]
        self._threads: list[threading.Thread] = [*clients, *readers]

    def start(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def finish(self) -> None:
        """Returns when nobody asks any more. Lost: what a reader or a client met."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), f"{thread.name} hangs"
        if self.book.failures:
            raise Lost("; ".join(self.book.failures))

    def wait_for(self, count: int, timeout_s: float = 60.0) -> None:
        """Until so many more writes are acknowledged."""
        book = self.book
        wanted, deadline = book.acknowledged.total() + count, time.monotonic() + timeout_s
        while book.acknowledged.total() < wanted:
            if book.failures:
                raise Lost("; ".join(book.failures))
            assert time.monotonic() < deadline, f"writes make no progress: {book.unknown} {book.refused}"
            time.sleep(0.02)
