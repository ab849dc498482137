"""The token table's rules over dictionaries: what tests/model compares the real one with. Slow, obvious, no bounds."""

from dataclasses import dataclass, field

from tokmesh._core.session_view import SessionView
from tokmesh._core.table import Outcome, Verdict
from tokmesh._core.views import Status

DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"


def ulid(session_id: bytes) -> str:
    number = int.from_bytes(session_id, "big")
    return "".join(DIGITS[(number >> shift) & 31] for shift in range(125, -1, -5))


def tick_after(time_ms: int) -> int:
    return -(-time_ms // 1000)


@dataclass
class ModelSession:
    id: bytes
    token_hash: bytes
    user_id: str
    device_id: str
    ip_address: str
    user_agent: str
    created_by: str
    created_at: int
    expires_at: int
    idle_seconds: int
    data: bytes
    last_access_ip: str
    last_access_ua: str
    last_active: int
    version: int = 1
    state: Status = Status.LIVE
    revoked_at: int = 0
    alias: bytes | None = None
    linked: int = 0  # when it last joined its user's and device's list, as a running number

    def deadline(self) -> int:
        idle_end = self.last_active + self.idle_seconds * 1000
        return min(self.expires_at, idle_end) if self.idle_seconds else self.expires_at

    def dead(self, time_ms: int) -> bool:
        return self.state == Status.REVOKED or self.deadline() <= time_ms

    def view(self) -> SessionView:
        return SessionView(
            self.id,
            self.user_id,
            self.device_id,
            self.ip_address,
            self.user_agent,
            self.last_access_ip,
            self.last_access_ua,
            self.created_by,
            self.created_at,
            self.expires_at,
            self.last_active,
            self.data,
            self.version,
            self.idle_seconds,
        )


@dataclass
class Holder:
    """What a token means: a session, directly or (until `valid_until`) through a rotation; None: a grace that was ended."""

    session: ModelSession | None
    valid_until: int | None = None


@dataclass
class TableModel:
    tombstone_ttl_ms: int
    tick: int = 0
    sessions: dict[bytes, ModelSession] = field(default_factory=dict)
    tokens: dict[bytes, Holder] = field(default_factory=dict)
    touched: dict[bytes, list[str | None]] = field(default_factory=dict)
    links: int = 0

    def holder_dead(self, token_hash: bytes, time_ms: int) -> bool:
        holder = self.tokens[token_hash]
        if holder.session is None or holder.session.dead(time_ms):
            return True
        return holder.valid_until is not None and holder.valid_until <= time_ms

    def remove(self, session: ModelSession) -> None:
        del self.sessions[session.id]
        del self.tokens[session.token_hash]
        if session.alias is not None:
            del self.tokens[session.alias]
        self.touched.pop(session.id, None)

    def drop_token(self, token_hash: bytes) -> None:
        holder = self.tokens[token_hash]
        if holder.valid_until is None:
            assert holder.session is not None
            self.remove(holder.session)
            return
        del self.tokens[token_hash]
        if holder.session is not None:
            holder.session.alias = None

    def link(self, session: ModelSession) -> None:
        session.state = Status.LIVE
        self.links += 1
        session.linked = self.links

    def settle(self, session: ModelSession) -> None:
        if session.state == Status.EXPIRED and tick_after(session.deadline()) > self.tick:
            self.link(session)

    def insert(
        self, session_id: bytes, token_hash: bytes, user_id: str, device_id: str, ip_address: str, user_agent: str,
        created_by: str, created_at_ms: int, expires_at_ms: int, idle_seconds: int, data: bytes,
    ) -> Outcome:  # fmt: skip
        old = self.sessions.get(session_id)
        if old is not None and not old.dead(created_at_ms):
            return Outcome.ID_EXISTS
        if token_hash in self.tokens and not self.holder_dead(token_hash, created_at_ms):
            return Outcome.TOKEN_EXISTS
        if old is not None:
            self.remove(old)
        if token_hash in self.tokens:
            self.drop_token(token_hash)
        session = ModelSession(
            session_id, token_hash, user_id, device_id, ip_address, user_agent, created_by, created_at_ms, expires_at_ms,
            idle_seconds, data, ip_address, user_agent, created_at_ms,
        )  # fmt: skip
        self.sessions[session_id] = session
        self.tokens[token_hash] = Holder(session)
        self.link(session)
        return Outcome.INSERTED

    def changeable(self, session_id: bytes) -> tuple[ModelSession | None, Outcome]:
        session = self.sessions.get(session_id)
        if session is None:
            return None, Outcome.MISSING
        return session, Outcome.REVOKED_ALREADY if session.state == Status.REVOKED else Outcome.DONE

    def finish(self, session: ModelSession, time_ms: int) -> None:
        session.version += 1
        session.last_active = max(session.last_active, time_ms)
        self.settle(session)

    def renew(self, session_id: bytes, expires_at_ms: int, time_ms: int) -> Outcome:
        session, outcome = self.changeable(session_id)
        if session is not None and outcome == Outcome.DONE:
            session.expires_at = expires_at_ms
            self.finish(session, time_ms)
        return outcome

    def update(self, session_id: bytes, data: bytes, time_ms: int) -> Outcome:
        session, outcome = self.changeable(session_id)
        if session is not None and outcome == Outcome.DONE:
            session.data = data
            self.finish(session, time_ms)
        return outcome

    def rotate(self, session_id: bytes, new_hash: bytes, old_valid_until_ms: int, time_ms: int) -> Outcome:
        session, outcome = self.changeable(session_id)
        if session is None or outcome != Outcome.DONE:
            return outcome
        if new_hash in self.tokens:
            if new_hash == session.token_hash or not self.holder_dead(new_hash, time_ms):
                return Outcome.TOKEN_EXISTS
            self.drop_token(new_hash)
        if session.alias is not None:
            until = self.tokens[session.alias].valid_until
            assert until is not None
            self.tokens[session.alias] = Holder(None, min(until, time_ms))
        self.tokens[session.token_hash] = Holder(session, old_valid_until_ms)
        session.alias, session.token_hash = session.token_hash, new_hash
        self.tokens[new_hash] = Holder(session)
        self.finish(session, time_ms)
        return outcome

    def revoke(self, session_id: bytes, time_ms: int) -> Outcome:
        session, outcome = self.changeable(session_id)
        if outcome == Outcome.REVOKED_ALREADY:
            return Outcome.ALREADY
        if session is not None:
            session.state, session.revoked_at = Status.REVOKED, time_ms
        return outcome

    def touch(
        self, session_id: bytes, last_active_ms: int, ip_address: str | None = None, user_agent: str | None = None
    ) -> Outcome:
        session, outcome = self.changeable(session_id)
        if session is None or outcome != Outcome.DONE:
            return outcome
        session.last_active = max(session.last_active, last_active_ms)
        changed = self.touched.setdefault(session_id, [None, None])
        if ip_address is not None and (ip_address != session.last_access_ip):
            session.last_access_ip = changed[0] = ip_address
        if user_agent is not None and user_agent != session.last_access_ua:
            session.last_access_ua = changed[1] = user_agent
        self.settle(session)
        return outcome

    def drain_touched(self) -> dict[bytes, tuple[int, str | None, str | None]]:
        touched, self.touched = self.touched, {}
        drained = {}
        for session_id, (ip, user_agent) in touched.items():
            session = self.sessions[session_id]
            drained[session_id] = (
                session.last_active,
                ip and session.last_access_ip,
                user_agent and session.last_access_ua,
            )
        return drained

    def advance(self, now_ms: int) -> None:
        self.tick = max(self.tick, now_ms // 1000)
        for session in list(self.sessions.values()):
            if session.state == Status.LIVE and tick_after(session.deadline()) <= self.tick:
                session.state = Status.EXPIRED
            end = session.revoked_at if session.state == Status.REVOKED else session.deadline()
            if session.state != Status.LIVE and tick_after(end + self.tombstone_ttl_ms) <= self.tick:
                self.remove(session)
        for token_hash, holder in list(self.tokens.items()):
            if holder.valid_until is not None and tick_after(holder.valid_until + self.tombstone_ttl_ms) <= self.tick:
                self.drop_token(token_hash)

    def verdict(self, token_hash: bytes, now_ms: int) -> tuple[Verdict, ModelSession | None]:
        holder = self.tokens.get(token_hash)
        if holder is None:
            return Verdict.VERDICT_UNKNOWN, None
        if holder.session is None:
            return Verdict.VERDICT_EXPIRED, None
        if holder.session.state == Status.REVOKED:
            return Verdict.VERDICT_REVOKED, holder.session
        if holder.session.state == Status.EXPIRED or self.holder_dead(token_hash, now_ms):
            return Verdict.VERDICT_EXPIRED, holder.session
        return Verdict.VERDICT_VALID, holder.session

    def newest_first(self, name: str, value: str, state: Status = Status.LIVE) -> list[bytes]:
        listed = [s for s in self.sessions.values() if s.state == state and value and getattr(s, name) == value]
        return [s.id for s in sorted(listed, key=lambda s: -s.linked)]

    def live_count(self) -> int:
        return sum(s.state == Status.LIVE for s in self.sessions.values())
