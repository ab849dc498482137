"""The cluster's stream: made or checked, described, asked for single records.

It keeps the last record of each subject, for as long as the record says, on a majority of NATS servers. Invariants that the rest
relies on, so that a stream without them is refused: one record a subject, expiry by record, direct reads, file storage that is
written before it is answered, no limit by number, size or age that would drop or refuse what lives.
"""

import base64
import logging
import time
from datetime import datetime
from typing import Any, Final, NamedTuple

from tokmesh.cluster.link import ApiRefused, Link, LinkDown
from tokmesh.cluster.subjects import Subjects
from tokmesh.following import MS_NS, Following

NOT_FOUND: Final = 10059
DUPLICATE_WINDOW_NS: Final = 120_000_000_000
RECORD_BYTES_MAX: Final = 65_536
VERIFY_TIMEOUT_S: Final = 0.5
HEARD_WITHIN_NS: Final = 5_000_000_000
BEHIND_S: Final = 15.0  # a leader that is cut off goes on claiming to lead for up to 10 s

logger = logging.getLogger("tokmesh.cluster")


class StreamRefused(Exception):
    """A stream of that name is not what is needed; `str()` says why."""


class StreamLost(Exception):
    """What this node has applied is not in the stream: it was made anew, or set back. `str()` says which."""


class StreamFacts(NamedTuple):
    """created_ns: when it was made, Unix; last_sequence: of its last record ever, which was stored at last_ms."""

    created_ns: int
    last_sequence: int
    last_ms: int


class Stored(NamedTuple):
    """The last record of a subject. id: its message id; follows: the sequence of the subject's record before it, which it replaced,
    where it was stored on that condition."""

    sequence: int
    id: str
    payload: bytes
    follows: int | None = None


class Stream:
    """Of one cluster. replicas: to make it with."""

    def __init__(self, link: Link, subjects: Subjects, replicas: int) -> None:
        self._link = link
        self._subjects = subjects
        self._replicas = replicas
        self.name = subjects.stream
        self._behind_since_s: float | None = None

    async def ensure(self, *, may_make: bool) -> StreamFacts:
        """Makes the stream where it is missing and may be made. Raises LinkDown, ApiRefused, StreamRefused."""
        try:
            info = await self._link.ask(f"STREAM.INFO.{self.name}", None)
        except ApiRefused as error:
            if error.code != NOT_FOUND or not may_make:
                raise
            info = await self._link.ask(f"STREAM.CREATE.{self.name}", self._config(), timeout_s=10.0)
            logger.info("the cluster's stream was made", extra={"stream": self.name, "replicas": self._replicas})
        self._check(info["config"])
        return facts_of(info)

    async def has_majority(self, timeout_s: float) -> bool:
        """Whether who says to lead the stream has heard a majority of its servers lately. Raises LinkDown, ApiRefused."""
        return _hears_majority(await self._link.ask(f"STREAM.INFO.{self.name}", None, timeout_s))

    async def holders(self) -> set[str]:
        """Names of the servers that hold it. Raises LinkDown, ApiRefused."""
        found = (await self._link.ask(f"STREAM.INFO.{self.name}", None)).get("cluster") or {}
        names = [found.get("leader"), *(each.get("name") for each in found.get("replicas") or [])]
        return {str(name) for name in names if name}

    async def verify(self, following: Following) -> None:
        """Whether it is the stream that `following` follows, and holds all of that. Raises StreamLost, LinkDown, ApiRefused."""
        try:
            info = await self._link.ask(f"STREAM.INFO.{self.name}", None, VERIFY_TIMEOUT_S)
        except (LinkDown, ApiRefused):
            self._behind_since_s = None  # what is said next may be another server's word
            raise
        facts = facts_of(info)
        if facts.created_ns != following.created_ns:
            raise StreamLost("the stream was made anew: what the one before held is not in it")
        if facts.last_sequence >= following.position:
            self._behind_since_s = None
            return
        reason = f"the stream ends at {facts.last_sequence}; this node has applied {following.position}"
        now_s = time.monotonic()
        if not _hears_majority(info):
            self._behind_since_s = None
            raise LinkDown(f"{reason}; the server that says so hears no majority of the stream's")
        self._behind_since_s = now_s if self._behind_since_s is None else self._behind_since_s
        if now_s - self._behind_since_s >= BEHIND_S:
            raise StreamLost(reason)
        raise LinkDown(f"{reason}; perhaps a server that leads no more says so")

    async def has_dropped(self, subject: str, sequence: int) -> bool:
        """Whether the last record of a subject, which stood there, is gone: a server that has come that far has none of the
        subject, as its time was over by the server's clock. One that leads no more may be asked; where it lacks the record for that
        reason, it has not come that far. Raises LinkDown, ApiRefused."""
        info = await self._link.ask(f"STREAM.INFO.{self.name}", {"subjects_filter": subject})
        return facts_of(info).last_sequence >= sequence and not info["state"].get("subjects")

    async def last(self, subject: str) -> Stored | None:
        """The last record of a subject as a majority has it (its leader is asked); None for none. Raises LinkDown, ApiRefused."""
        try:
            answer = await self._link.ask(f"STREAM.MSG.GET.{self.name}", {"last_by_subj": subject})
        except ApiRefused as error:
            if error.status == 404:
                return None
            raise
        message = answer["message"]
        payload = base64.b64decode(message.get("data", ""))
        headers = message.get("hdrs", "")
        follows = _header(headers, "nats-expected-last-subject-sequence")
        return Stored(int(message["seq"]), _header(headers, "nats-msg-id"), payload, int(follows) if follows.isdigit() else None)

    def _config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "subjects": self._subjects.patterns,
            "retention": "limits",
            "max_consumers": -1,
            "max_msgs": -1,
            "max_bytes": -1,
            "max_age": 0,
            "max_msgs_per_subject": 1,
            "max_msg_size": RECORD_BYTES_MAX,
            "discard": "new",
            "storage": "file",
            "num_replicas": self._replicas,
            "duplicate_window": DUPLICATE_WINDOW_NS,
            "allow_direct": True,
            "allow_msg_ttl": True,
            "deny_delete": True,
            "deny_purge": True,
        }

    def _check(self, config: dict[str, Any]) -> None:
        wanted = self._config()
        for name in ("subjects", "max_msgs_per_subject", "max_msgs", "max_bytes", "max_age", "storage", "retention"):
            self._require(config, name, (config.get(name) or 0) == wanted[name])
        for name in ("allow_direct", "allow_msg_ttl"):
            self._require(config, name, bool(config.get(name)))
        for name in ("no_ack", "sealed"):
            self._require(config, name, not config.get(name))
        self._require(config, "persist_mode", config.get("persist_mode") in (None, "", "default"))
        self._require(config, "max_msg_size", not 0 <= (config.get("max_msg_size") or -1) < RECORD_BYTES_MAX)
        self._require(config, "duplicate_window", (config.get("duplicate_window") or 0) >= DUPLICATE_WINDOW_NS)
        if config.get("num_replicas", 1) < self._replicas:
            logger.warning("the stream has fewer replicas than configured", extra={"replicas": config.get("num_replicas")})

    def _require(self, config: dict[str, Any], name: str, is_so: bool) -> None:
        if not is_so:
            raise StreamRefused(f"stream {self.name} was made or changed by somebody else: {name} is {config.get(name)!r}")


def _hears_majority(info: dict[str, Any]) -> bool:
    """Whether a leader says so that has heard a majority of the stream's servers lately. Of a stream without a leader any server
    answers after a while, by what it has itself; it names no leader, and as the age of what it has not heard 0."""
    cluster = info.get("cluster")
    if not cluster:
        return True  # a server alone
    others = cluster.get("replicas") or []
    heard = sum(0 < int(each.get("active", 0)) < HEARD_WITHIN_NS for each in others)
    return bool(cluster.get("leader")) and 1 + heard > (1 + len(others)) // 2


def facts_of(info: dict[str, Any]) -> StreamFacts:
    """Of an answer to STREAM.INFO."""
    state = info["state"]
    return StreamFacts(_unix_ns(info["created"]), int(state["last_seq"]), _unix_ns(state["last_ts"]) // MS_NS)


def _unix_ns(text: str) -> int:
    """Of RFC 3339 with up to nine digits of a second, UTC."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp())
    return seconds * 1_000_000_000 + int((fraction or "0").ljust(9, "0")[:9])


def _header(headers: str, wanted: str) -> str:
    """Of base64 headers as the API gives them; "" without it. wanted: in lower case."""
    for line in base64.b64decode(headers).decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == wanted:
            return value.strip()
    return ""
