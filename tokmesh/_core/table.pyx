"""The token table over dictionaries: the interface and its rules, before the flat memory that replaces it."""

import json

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy

from tokmesh._core.session_view import SessionView

globals()["SESSION_JSON_BYTES_MAX"] = SESSION_JSON_BYTES_MAX
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def _ulid(id16):
    number = int.from_bytes(id16, "big")
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))


def _ceil_s(ms):
    return -(-ms // 1000)


class _Session:
    pass


cdef class Table:
    def __init__(self, *, tombstone_ttl_ms, seed=None, entries_max=2**26, arena_bytes_max=2**35):
        self._tombstone_ttl_ms = tombstone_ttl_ms
        self._tick = 0
        self._sessions, self._tokens, self._entries, self._touched = {}, {}, [None], {}

    def _deadline(self, s):
        return min(s.expires, s.active + s.idle * 1000) if s.idle else s.expires

    def _dead(self, s, t):
        return s.state == REVOKED or self._deadline(s) <= t

    def _token_dead(self, h, t):
        s, until = self._tokens[h]
        return s is None or self._dead(s, t) or (until is not None and until <= t)

    def _remove(self, s):
        del self._sessions[s.id]
        del self._tokens[s.hash]
        if s.alias is not None:
            self._tokens.pop(s.alias, None)
        self._entries[s.entry] = None

    def _drop_token(self, h):
        s, until = self._tokens[h]
        if s is not None and until is None:
            self._remove(s)
        else:
            del self._tokens[h]
            if s is not None:
                s.alias = None

    def _settle(self, s):
        if s.state == EXPIRED and _ceil_s(self._deadline(s)) > self._tick:
            s.state = LIVE

    def insert(self, session_id, token_hash, user_id, device_id, ip_address, user_agent, created_by, created_at_ms,
               expires_at_ms, idle_seconds, data):
        old = self._sessions.get(session_id)
        if old is not None and not self._dead(old, created_at_ms):
            return ID_EXISTS
        if token_hash in self._tokens and not self._token_dead(token_hash, created_at_ms):
            return TOKEN_EXISTS
        if old is not None:
            self._remove(old)
        if token_hash in self._tokens:
            self._drop_token(token_hash)
        s = _Session()
        s.id, s.hash, s.user, s.device, s.ip, s.ua = session_id, token_hash, user_id, device_id, ip_address, user_agent
        s.last_ip, s.last_ua, s.by, s.created, s.expires = ip_address, user_agent, created_by, created_at_ms, expires_at_ms
        s.active, s.idle, s.data, s.version, s.state, s.alias = created_at_ms, idle_seconds, data, 1, LIVE, None
        s.revoked_at, s.entry = 0, len(self._entries)
        self._entries.append(s)
        self._sessions[session_id] = s
        self._tokens[token_hash] = (s, None)
        return INSERTED

    def _change(self, session_id, time_ms):
        s = self._sessions.get(session_id)
        if s is None:
            return None, MISSING
        if s.state == REVOKED:
            return None, REVOKED_ALREADY
        s.version += 1
        s.active = max(s.active, time_ms)
        return s, DONE

    def renew(self, session_id, expires_at_ms, time_ms):
        s, outcome = self._change(session_id, time_ms)
        if s is not None:
            s.expires = expires_at_ms
            self._settle(s)
        return outcome

    def update(self, session_id, data, time_ms):
        s, outcome = self._change(session_id, time_ms)
        if s is not None:
            s.data = data
            self._settle(s)
        return outcome

    def rotate(self, session_id, new_hash, old_valid_until_ms, time_ms):
        s = self._sessions.get(session_id)
        if s is None:
            return MISSING
        if s.state == REVOKED:
            return REVOKED_ALREADY
        if new_hash in self._tokens:
            if self._tokens[new_hash] == (s, None) or not self._token_dead(new_hash, time_ms):
                return TOKEN_EXISTS
            self._drop_token(new_hash)
        s, outcome = self._change(session_id, time_ms)
        if s.alias is not None:
            self._tokens[s.alias] = (None, min(self._tokens[s.alias][1], time_ms))
        self._tokens[s.hash] = (s, old_valid_until_ms)
        s.alias, s.hash = s.hash, new_hash
        self._tokens[new_hash] = (s, None)
        self._settle(s)
        return outcome

    def revoke(self, session_id, time_ms):
        s = self._sessions.get(session_id)
        if s is None:
            return MISSING
        if s.state == REVOKED:
            return ALREADY
        s.state, s.revoked_at = REVOKED, time_ms
        return DONE

    def touch(self, session_id, last_active_ms, ip_address=None, user_agent=None):
        s = self._sessions.get(session_id)
        if s is None:
            return MISSING
        if s.state == REVOKED:
            return REVOKED_ALREADY
        s.active = max(s.active, last_active_ms)
        row = self._touched.setdefault(session_id, [None, None])
        if ip_address is not None and ip_address != s.last_ip:
            s.last_ip = row[0] = ip_address
        if user_agent is not None and user_agent != s.last_ua:
            s.last_ua = row[1] = user_agent
        self._settle(s)
        return DONE

    def drain_touched(self, limit):
        rows = []
        for session_id in list(self._touched)[:limit]:
            ip, ua = self._touched.pop(session_id)
            if session_id in self._sessions:
                rows.append((session_id, self._sessions[session_id].active, ip, ua))
        return rows

    def advance(self, now_ms, budget):
        self._tick = max(self._tick, now_ms // 1000)
        for s in list(self._sessions.values()):
            if s.state == LIVE and _ceil_s(self._deadline(s)) <= self._tick:
                s.state = EXPIRED
            end = s.revoked_at if s.state == REVOKED else self._deadline(s)
            if s.state != LIVE and _ceil_s(end + self._tombstone_ttl_ms) <= self._tick:
                self._remove(s)
        for h, (_, until) in list(self._tokens.items()):
            if until is not None and _ceil_s(until + self._tombstone_ttl_ms) <= self._tick:
                self._drop_token(h)
        return 0

    def find(self, session_id):
        s = self._sessions.get(session_id)
        return -1 if s is None else s.entry

    def find_token(self, token_hash, now_ms):
        if token_hash not in self._tokens:
            return VERDICT_UNKNOWN, -1
        s, until = self._tokens[token_hash]
        if s is None:
            return VERDICT_EXPIRED, -1
        if s.state == REVOKED:
            return VERDICT_REVOKED, s.entry
        if s.state == EXPIRED or self._token_dead(token_hash, now_ms):
            return VERDICT_EXPIRED, s.entry
        return VERDICT_VALID, s.entry

    def token_known(self, token_hash):
        return token_hash in self._tokens

    def status(self, entry, now_ms):
        s = self._entries[entry]
        return EXPIRED if s.state == LIVE and self._deadline(s) <= now_ms else Status(s.state)

    def session(self, entry):
        s = self._entries[entry]
        return SessionView(s.id, s.user, s.device, s.ip, s.ua, s.last_ip, s.last_ua, s.by, s.created, s.expires, s.active,
                           s.data, s.version, s.idle)

    def session_json(self, entry):
        v = self.session(entry)._asdict()
        v.pop("idle_seconds")
        v["id"], v["data"] = "tmss-" + _ulid(v["id"]), json.loads(v["data"])
        return json.dumps(v, separators=(",", ":"), ensure_ascii=False).encode()

    def check(self, token_hash, now_ms, touch_ms=0):
        verdict, entry = self.find_token(token_hash, now_ms)
        if verdict != VERDICT_VALID:
            return verdict, b""
        if touch_ms > 0:
            self.touch(self._entries[entry].id, touch_ms)
        return verdict, self.session_json(entry)

    def user_entries(self, user_id):
        return [s.entry for s in reversed(self._sessions.values()) if s.state == LIVE and s.user == user_id]

    def device_entries(self, device_id):
        return [s.entry for s in reversed(self._sessions.values()) if device_id and s.state == LIVE and s.device == device_id]

    def scan(self, cursor, limit):
        entries = [s.entry for s in self._entries[cursor:] if s is not None and s.state == LIVE]
        return entries[:limit], entries[limit] if len(entries) > limit else -1

    def stats(self):
        live = sum(s.state == LIVE for s in self._sessions.values())
        return {"sessions_active": live, "entries_used": len(self._tokens), "tombstones": len(self._sessions) - live,
                "aliases": len(self._tokens) - len(self._sessions), "memory_bytes": 0, "memory_reserved_bytes": 0,
                "index_load": 0.0, "index_rebuilding": 0, "expiry_backlog": 0, "interned_strings": 0, "arena_free_bytes": 0}

    cdef int check_token(self, const uint8_t* token_hash, int64_t now_ms, char* out, Py_ssize_t* written,
                         int64_t touch_ms) noexcept nogil:
        cdef const char* text
        with gil:
            verdict, answer = self.check((<const char*>token_hash)[:32], now_ms, touch_ms)
            if out != NULL and verdict == VERDICT_VALID:
                text = answer
                memcpy(out, text, len(answer))
                written[0] = len(answer)
            return verdict
