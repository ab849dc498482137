"""A write load on a real server, and a ledger of what it acknowledged.

Each client owns its sessions and has one request under way, so the ledger knows of every session what it must look like
after a restart: as acknowledged or, for the one request that got no answer, as acknowledged or as asked for. A renewal
and an update of one session are told apart by the version, which each change raises by one.
"""

import http.client
import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.rounds import Lost
from tests.support.server import TokMeshProcess

CLIENTS: Final = 4
SESSIONS_PER_USER: Final = 40  # below the quota of 50
BATCH_TOKENS: Final = 1000
FLUSHED_AFTER_MS: Final = 2500  # a touch is in the log at the latest so long after its answer: flushes are 1 s apart
WEIGHTS: Final = {"create": 6, "renew": 3, "update": 3, "rotate": 3, "touch": 3, "revoke": 2}


@dataclass
class Session:
    """What was acknowledged of one session; `asked`: the operation that got no answer, and when it was sent."""

    session_id: str
    token: str
    expires_at: int
    version: int = 1
    data: dict[str, str] = field(default_factory=dict)
    revoked: bool = False
    ended_tokens: list[str] = field(default_factory=list)  # rotated away without a grace
    touched: list[tuple[int, int]] = field(default_factory=list)  # (when answered, last_active it said), monotonic ms
    asked: tuple[str, Any] | None = None


class Refused(Exception):
    """An answer other than 200: (status, code)."""


class Client:
    """One writer with a connection of its own. Ends at the first answer that does not come; refusals are counted."""

    def __init__(self, server: TokMeshProcess, name: str, seed: int) -> None:
        self._server = server
        self._name = name
        self._random = random.Random(seed)
        self._users = 0
        self._sent = 0
        self._connection: http.client.HTTPConnection | None = None
        self.sessions: list[Session] = []
        self.acknowledged: Counter[str] = Counter()
        self.refused: Counter[tuple[int, str]] = Counter()
        self.written_after_refusal = 0  # changes acknowledged after the first refusal; a touch changes nothing in the log
        self.stop = threading.Event()

    def run(self) -> None:
        """Writes until the server is gone or `stop`; pauses after refusals."""
        self.connect()
        try:
            while not self.stop.is_set():  # ends with the server, or by the test that started it
                try:
                    operation = self.step()
                    self.written_after_refusal += bool(self.refused) and operation != "touch"
                except Refused as refusal:
                    self.refused[refusal.args] += 1
                    time.sleep(0.01)
        except (OSError, http.client.HTTPException):
            pass
        finally:
            self.close()

    def connect(self) -> None:
        """To the server as it runs now."""
        self._connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=30)

    def close(self) -> None:
        """Ends the connection."""
        if self._connection is not None:
            self._connection.close()

    def step(self) -> str:
        """One random operation, which was acknowledged. Refused, OSError, HTTPException."""
        live = [each for each in self.sessions[-SESSIONS_PER_USER:] if not each.revoked and each.asked is None]
        operation = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0] if live else "create"
        if operation == "create":
            self._create()
        else:
            getattr(self, f"_{operation}")(self._random.choice(live))
        self.acknowledged[operation] += 1
        return operation

    def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert self._connection is not None
        headers = {"Authorization": f"Bearer {self._server.admin_key}"}
        self._connection.request("POST", path, json.dumps(body), headers)
        answer = self._connection.getresponse()
        content = json.loads(answer.read())
        if answer.status != 200:
            raise Refused(answer.status, content["code"])
        found: dict[str, Any] = content["data"]
        return found

    def _change(self, session: Session, operation: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        # A refusal leaves the change in doubt as well: a record whose sync failed may be in the log.
        session.asked = (operation, body.get("data"))
        answer = self._ask(path, body)
        session.asked = None
        return answer

    def _create(self) -> None:
        self._sent += 1
        user_id = f"{self._name}-{self._sent // SESSIONS_PER_USER}"
        data = {"number": str(self._sent)}
        made = self._ask("/sessions", {"user_id": user_id, "data": data, "ttl_seconds": 3600})
        self.sessions.append(Session(made["session_id"], made["token"], made["expires_at"], data=data))

    def _renew(self, session: Session) -> None:
        ttl_s = self._random.randrange(3600, 7200)
        made = self._change(session, "renew", f"/sessions/{session.session_id}/renew", {"ttl_seconds": ttl_s})
        session.expires_at = made["new_expires_at"]
        session.version += 1

    def _update(self, session: Session) -> None:
        self._sent += 1
        data = {"number": str(self._sent), "padding": "x" * self._random.randrange(300)}
        body = {"data": data, "if_version": session.version}
        session.version = self._change(session, "update", f"/sessions/{session.session_id}/update", body)["version"]
        session.data = data

    def _rotate(self, session: Session) -> None:
        made = self._change(session, "rotate", "/tokens/rotate", {"token": session.token})
        session.ended_tokens.append(session.token)
        session.token = made["token"]
        session.version += 1

    def _revoke(self, session: Session) -> None:
        self._change(session, "revoke", f"/sessions/{session.session_id}/revoke", {})
        session.revoked = True

    def _touch(self, session: Session) -> None:
        made = self._ask(f"/sessions/{session.session_id}/touch", {})
        session.touched.append((time.monotonic_ns() // 1_000_000, made["session"]["last_active"]))


class Load:
    """CLIENTS writers on one server, and the check of everything they were promised."""

    def __init__(self, server: TokMeshProcess, seed: int) -> None:
        self._server = server
        self._seed = seed
        self._runs = 0
        self.sessions: list[Session] = []  # of earlier runs; the checks resolved what was in doubt
        self.clients: list[Client] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> "Load":
        self._runs += 1
        names = [f"u{self._runs}-{index}" for index in range(CLIENTS)]
        self.clients = [Client(self._server, name, self._seed * 1000 + self._runs * 10 + i) for i, name in enumerate(names)]
        self._threads = [threading.Thread(target=client.run, daemon=True) for client in self.clients]
        for thread in self._threads:
            thread.start()
        return self

    def finish(self) -> Counter[str]:
        """Waits for the writers, whose server is gone or who are told to stop; acknowledged operations by kind."""
        for client in self.clients:
            client.stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a request was never answered"
        self.sessions += [session for client in self.clients for session in client.sessions]
        return sum((client.acknowledged for client in self.clients), Counter())

    @property
    def refused(self) -> Counter[tuple[int, str]]:
        return sum((client.refused for client in self.clients), Counter())

    def wait_for(self, acknowledged: int, timeout_s: float = 60) -> None:
        """Until so many operations were acknowledged in this run."""
        deadline = time.monotonic() + timeout_s
        while sum(client.acknowledged.total() for client in self.clients) < acknowledged:
            assert time.monotonic() < deadline, f"the load makes no progress\n{self._server.output}"
            time.sleep(0.005)

    def check(self, ended_at_ms: int | None) -> int:
        """Compares every session with its verdict now; what was in doubt becomes known. ended_at_ms: monotonic ms of the
        kill, None when the server stopped in order, and so wrote every touch. Returns the sessions compared. Lost."""
        tokens = [session.token for session in self.sessions]
        for session, verdict in zip(self.sessions, self._verdicts(tokens), strict=True):
            self._compare(session, verdict, ended_at_ms)
        ended = [token for session in self.sessions for token in session.ended_tokens]
        for verdict in self._verdicts(ended):
            if verdict["valid"]:
                raise Lost(f"a token that was rotated away is valid: {verdict}")
        self.sessions = [session for session in self.sessions if session.asked is None]
        return len(tokens)

    def _verdicts(self, tokens: list[str]) -> list[dict[str, Any]]:
        verdicts: list[dict[str, Any]] = []
        for start in range(0, len(tokens), BATCH_TOKENS):
            batch = {"tokens": tokens[start : start + BATCH_TOKENS]}
            found = self._server.data("POST", "/tokens/validate/batch", batch)
            verdicts += found["results"] if isinstance(found, dict) else found
        return verdicts

    def _compare(self, session: Session, verdict: dict[str, Any], ended_at_ms: int | None) -> None:
        operation, data = session.asked or ("", None)
        if session.revoked:
            if verdict["valid"] or verdict["error"]["code"] != "TM-TOKN-4012":
                raise Lost(f"an acknowledged revocation of {session.session_id} is undone: {verdict}")
            return
        if not verdict["valid"]:
            # The answer that got lost may have been a revocation, or a rotation whose new token nobody knows.
            if operation not in ("revoke", "rotate"):
                raise Lost(f"{session}: {verdict}")
            return
        found = verdict["session"]
        done = operation in ("renew", "update") and found["version"] == session.version + 1
        expected_data = data if done and operation == "update" else session.data
        if found["version"] != session.version + done or found["data"] != expected_data:
            raise Lost(f"{session}: {found}")
        if found["expires_at"] != session.expires_at and not (done and operation == "renew"):
            raise Lost(f"{session}: {found}")
        flushed = [said for at, said in session.touched if ended_at_ms is None or at < ended_at_ms - FLUSHED_AFTER_MS]
        if found["last_active"] < max(flushed, default=0):
            raise Lost(f"{session}: a touch that had been flushed is gone: {found}")
        session.version, session.data, session.expires_at = found["version"], found["data"], found["expires_at"]
        session.asked = None
        session.touched = []
