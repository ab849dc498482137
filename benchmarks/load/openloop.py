"""Open-loop load: requests leave at their own times whatever the server does; latency counts from the time intended.

A closed loop (wrk) waits for the server before it asks again, and so asks less exactly while the server is slow. Here
request n is due at n / rate; when it leaves late, because every connection is busy or the generator is behind, the wait
is in its latency. One request is in flight a connection, so no request is helped by pipelining.
The generator polls its sockets on a core of its own (pump.pyx); `achieved` says what rate it really reached.
"""

import gc
import json
import select
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from benchmarks.load.fill import complete, connect
from benchmarks.load.http import exchange, raw_post
from benchmarks.load.process import BenchmarkError

CONNECTIONS = 256
SIDE_CONNECTIONS = 16
CREATES_PER_S = 100
DRAIN_S = 5.0
SCRAPE_WINDOW_S = 0.05  # a scrape is due at every full second from the start
BUFFER_BYTES = 1 << 20
START_DELAY_NS = 50_000_000
SLICE_NS = 500_000
WARM_UP_S = 1.0  # sent, not counted


@dataclass
class OpenLoopResult:
    """Latencies are seconds from the intended time, one list per kind of request."""

    offered_per_s: float
    achieved_per_s: float
    latencies: dict[str, "array[float]"]
    due_s: "array[float]"  # of each validate, from the start

    def percentile_ms(self, kind: str, share: float) -> float:
        return percentile(self.latencies[kind], share) * 1e3

    def scrape_p99_ms(self) -> tuple[float, float]:
        """P99 of the validates due within SCRAPE_WINDOW_S after a scrape, and of the others."""
        near: list[float] = []
        far: list[float] = []
        for due_s, latency in zip(self.due_s, self.latencies["validate"], strict=True):
            (near if due_s % 1.0 < SCRAPE_WINDOW_S else far).append(latency)
        return percentile(near, 0.99) * 1e3, percentile(far, 0.99) * 1e3


def percentile(values: "Sequence[float] | array[float]", share: float) -> float:
    """The value that `share` of the values (0…1) do not exceed. `values`: at least one."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@dataclass(frozen=True)
class Side:
    """A request beside the validates: sent once, its answer handed to `then`."""

    kind: str
    due: float
    message: bytes
    then: "Callable[[bytes], None] | None" = None


@dataclass(frozen=True)
class SideLoad:
    """What is asked beside the validates, and with which keys."""

    issuer_key: str
    metrics_key: str
    create_bodies: list[str]


@dataclass
class SideTraffic:
    """Creates and revokes at CREATES_PER_S each (a session lives for a second), one scrape a second."""

    port: int
    load: SideLoad
    start: float
    _created: int = 0
    _scraped: int = 0
    _waiting: deque[Side] = field(default_factory=deque)
    _revokes: deque[Side] = field(default_factory=deque)

    def due(self, now: float) -> deque[Side]:
        """Moves what has become due into the waiting line and returns that line; the caller takes from its left."""
        while self.start + self._created / CREATES_PER_S <= now:
            body = self.load.create_bodies[self._created % len(self.load.create_bodies)]
            intended = self.start + self._created / CREATES_PER_S
            self._waiting.append(
                Side("create", intended, raw_post("/sessions", body, self.load.issuer_key), self._plan_revoke)
            )
            self._created += 1
        while self.start + self._scraped <= now:
            head = f"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.load.metrics_key}\r\n\r\n"
            self._waiting.append(Side("scrape", self.start + self._scraped, head.encode()))
            self._scraped += 1
        while self._revokes and self._revokes[0].due <= now:
            self._waiting.append(self._revokes.popleft())
        return self._waiting

    def _plan_revoke(self, answer: bytes) -> None:
        session_id = json.loads(answer.partition(b"\r\n\r\n")[2])["data"]["session_id"]
        message = raw_post(f"/sessions/{session_id}/revoke", "{}", self.load.issuer_key)
        self._revokes.append(Side("revoke", time.monotonic() + 1.0, message))


class SideConnections:
    """The few connections that carry the side traffic, served between slices of the pump."""

    def __init__(self, traffic: SideTraffic) -> None:
        self.latencies: dict[str, array[float]] = {kind: array("d") for kind in ("create", "revoke", "scrape")}
        self._traffic = traffic
        self._poll = select.epoll()
        self._sockets = {one.fileno(): one for one in (connect(traffic.port) for _ in range(SIDE_CONNECTIONS))}
        self._idle = list(self._sockets)
        self._current: dict[int, tuple[Side, bytes]] = {}
        for number in self._sockets:
            self._poll.register(number, select.EPOLLIN)

    def turn(self, now: float) -> None:
        """Sends what is due and takes what has come. now: seconds of CLOCK_MONOTONIC."""
        waiting = self._traffic.due(now)
        while waiting and self._idle:
            number = self._idle.pop()
            side = waiting.popleft()
            self._current[number] = (side, b"")
            self._sockets[number].sendall(side.message)
        for number, _ in self._poll.poll(0):
            self._receive(number)

    def _receive(self, number: int) -> None:
        side, received = self._current[number]
        received += self._sockets[number].recv(BUFFER_BYTES)
        if not complete(received):
            self._current[number] = (side, received)
            return
        if not received.startswith(b"HTTP/1.1 200 "):
            raise BenchmarkError(f"{side.kind} was refused: {received[:500]!r}")
        self.latencies[side.kind].append(time.monotonic() - side.due)
        self._idle.append(number)
        if side.then is not None:
            side.then(received)

    def close(self) -> None:
        self._poll.close()
        for one in self._sockets.values():
            one.close()


@dataclass(frozen=True)
class OpenLoop:
    """What to offer. Every answer to `messages` must have the same size; any other size or status fails the run.

    pump: the compiled module of pump.pyx.
    """

    pump: ModuleType
    port: int
    messages: list[bytes]
    rate_per_s: float
    duration_s: float

    def capacity_per_s(self, beside: SideLoad) -> float:
        """What is answered a second when the rate is more than can be served. Blocks for the warm-up and `duration_s`."""
        return self._run(beside, drain_s=None).achieved_per_s

    def run(self, beside: SideLoad | None) -> OpenLoopResult:
        """Blocks for the warm-up, `duration_s` and a short drain. beside: None for validates alone."""
        return self._run(beside, DRAIN_S)

    def _run(self, beside: SideLoad | None, drain_s: float | None) -> OpenLoopResult:
        total = int(self.rate_per_s * (WARM_UP_S + self.duration_s))
        latencies_ns, due_ns = array("q", bytes(8 * total)), array("q", bytes(8 * total))
        sockets = [connect(self.port) for _ in range(CONNECTIONS)]
        answer_bytes = {len(exchange(one, self.messages[index])) for index, one in enumerate(sockets)}
        if len(answer_bytes) != 1:
            raise BenchmarkError(f"answers differ in size: {sorted(answer_bytes)}")
        gc.collect()
        gc.disable()
        # The schedule begins when everything is made: a generator that starts late would count that as the server's delay.
        start_ns = time.monotonic_ns() + START_DELAY_NS
        pump = self.pump.Pump(
            sockets, self.messages, answer_bytes.pop(), self.rate_per_s, start_ns, latencies_ns, due_ns
        )
        side = None if beside is None else SideConnections(SideTraffic(self.port, beside, start_ns / 1e9))
        try:
            achieved = self._drive(pump, side, start_ns, drain_s)
        finally:
            gc.enable()
            if side is not None:
                side.close()
            for one in sockets:
                one.close()
        warm = int(self.rate_per_s * WARM_UP_S)
        validates = array("d", [value / 1e9 for value in latencies_ns[warm:]])
        due_s = array("d", [value / 1e9 for value in due_ns[warm:]])
        latencies = {"validate": validates} if side is None else side.latencies | {"validate": validates}
        return OpenLoopResult(self.rate_per_s, achieved, latencies, due_s)

    def _drive(self, pump: Any, side: SideConnections | None, start_ns: int, drain_s: float | None) -> float:
        """→ validates answered per second. Validates in slices of SLICE_NS, the side traffic between them. drain_s: how long
        the last answers may take; None: what is unanswered at the end does not matter."""
        deadline_ns = start_ns + int((WARM_UP_S + self.duration_s + (drain_s or 0)) * 1e9)
        while True:
            now_ns = time.monotonic_ns()
            if now_ns > deadline_ns and drain_s is None:
                return float(pump.answered / ((now_ns - start_ns) / 1e9))
            if now_ns > deadline_ns:
                missing = pump.total - pump.answered
                raise BenchmarkError(f"{missing} of {pump.total} requests unanswered {drain_s:.0f} s after the end")
            try:
                done = pump.run_until(now_ns + SLICE_NS)
            except ConnectionError as error:
                raise BenchmarkError(f"open loop: {error}") from error
            if done:
                return float(pump.total / ((time.monotonic_ns() - start_ns) / 1e9))
            if side is not None:
                side.turn(time.monotonic_ns() / 1e9)
