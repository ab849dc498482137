"""The composition root: the only file that knows everybody. It builds a server from settings, runs it, and ends it.

Order of a start: configuration, data directory, log (locked and replayed), first admin key (durable), listeners. A
connection is accepted only when everything can serve, so there is no answer during recovery, not even of /health: what
watches the start of a process must allow for the replay of its log. Order of a stop: listeners, requests in flight,
periodic work, last touches, log.
"""

import asyncio
import gc
import logging
import signal
import ssl
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NoReturn, TypeVar

import uvloop

from tokmesh import __version__
from tokmesh._core.clock import Clock
from tokmesh._core.connection import Connection
from tokmesh._core.counters import CounterBlock
from tokmesh._core.server import Limits, Server
from tokmesh._core.table import Table
from tokmesh._core.validate import Validator
from tokmesh.api.probes import Readiness
from tokmesh.api.routes import build_routes
from tokmesh.config import ConfigError, Loaded, Settings, changed_keys
from tokmesh.config.keys import HttpSettings, value_of, with_values
from tokmesh.errors import EX_OK
from tokmesh.host import data_directory, process
from tokmesh.host.listeners import Listeners
from tokmesh.host.tls import server_context
from tokmesh.host.upkeep import Upkeep
from tokmesh.keyring import KeyRing
from tokmesh.keys import Authenticator, Keys
from tokmesh.log.file_log import FileLog
from tokmesh.log.record import AnyRecord, decode
from tokmesh.sessions import Sessions
from tokmesh.store import Store
from tokmesh.telemetry.exposition import Exposition
from tokmesh.telemetry.logs import LogStats, configure_logging, set_level
from tokmesh.telemetry.loop_lag import LoopLag
from tokmesh.telemetry.readings import Family, Sources
from tokmesh.telemetry.resources import Resources
from tokmesh.telemetry.status import Posture, Status

LOG_DIRECTORY: Final = "log"

T = TypeVar("T")

logger = logging.getLogger("tokmesh.server")


class _Stopped(BaseException):
    """A signal asked for the end before serving began."""


def run_server(load: Callable[[], Loaded]) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code.

    load: reads the configuration, at the start and again at SIGHUP. Raises ConfigError, or ApiError when the log cannot
    be had (another process has it, damage) or an address cannot be listened on.
    """
    loaded = load()
    settings = loaded.settings
    process.harden()
    tls = settings.server.https.tls
    context = server_context(tls) if settings.server.https.enabled else None
    data_directory.prepare(settings.storage.dir)
    log_stats = configure_logging(settings.telemetry.logging.level)
    process.tune(settings.server.http.max_connections, logger)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop_at_once)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        state = State(settings)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(App(loaded, load, state, log_stats, runner.get_loop()).run(context))
    except _Stopped:
        logger.info("stopped before serving")
    return EX_OK


def _stop_at_once(number: int, frame: object) -> NoReturn:
    raise _Stopped


class State:
    """What a node knows: the table and the keys, made from the log. Nothing here needs an event loop."""

    def __init__(self, settings: Settings) -> None:
        """Locks and replays the log. Raises ApiError TM-SYS-5001 when another process has it or it is damaged."""
        wal = settings.storage.wal
        self.clock = Clock()
        self.table = Table(tombstone_ttl_ms=settings.session.tombstone_ttl_ms)
        self.keyring = KeyRing()
        self.store = Store(self.table, self.keyring, replay_until_ms=self.clock.now_ms())
        self.log: FileLog[AnyRecord] = FileLog(
            settings.storage.dir / LOG_DIRECTORY,
            sync_mode=wal.sync_mode,
            sync_interval_ms=wal.sync_interval_ms,
            segment_bytes_max=wal.segment_size_bytes,
            decode=decode,
            clock=self.clock,
        )
        report = self.log.recover(self.store.replay)
        # Everything so far lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        logger.info(
            "log replayed",
            extra={"records": report.records, "seconds": round(report.seconds, 3), "torn_tail": report.torn_tail},
        )


class App:
    """One serving process."""

    def __init__(
        self,
        loaded: Loaded,
        load: Callable[[], Loaded],
        state: State,
        log_stats: LogStats,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        settings = loaded.settings
        self._settings = settings
        self._load = load
        self._state = state
        self._loop = loop
        self._stop = asyncio.Event()
        self._loop_lag = LoopLag()
        self._listeners = Listeners(loop, logger)
        counters = CounterBlock()
        self._authenticator = Authenticator(state.keyring, settings.security.auth, state.clock, counters)
        self._keys = Keys(state.keyring, state.log, state.clock, settings.security.auth)
        self._sessions = Sessions(state.table, state.log, state.clock, settings.session, counters)
        self._upkeep = Upkeep(self._sessions.sweep, self._sessions.flush_touched)
        validator = Validator(state.table, counters)
        readiness = Readiness()
        readiness.add("storage", lambda: state.log.failure)
        readiness.add("shutdown", lambda: "the server is stopping" if self._stop.is_set() else None)
        node_id = data_directory.node_id(settings.storage.dir, state.clock)
        self._status = Status(node_id, posture_of(settings), self._examine, readiness.checks)
        routes = build_routes(
            sessions=self._sessions,
            keys=self._keys,
            readiness=readiness,
            validator=validator,
            counters=counters,
            clock=state.clock,
            render_metrics=self._render_metrics,
            metrics_auth_enabled=settings.telemetry.metrics.auth_enabled,
            summarize=self._status.summary,
        )
        self._server = Server(
            loop,
            routes,
            validator,
            state.clock,
            self._authenticator,
            counters,
            limits_of(settings.server.http),
            logging.getLogger("tokmesh.http"),
            allow_list=settings.security.auth.allow_list or None,
        )
        self._exposition = Exposition(
            Sources(
                counters=counters,
                meter=self._server.meter,
                table=state.table,
                log=state.log,
                authenticator=self._authenticator,
                resources=Resources(settings.storage.dir),
                loop_lag=self._loop_lag,
                log_lines=log_stats,
                started_at=state.clock.now_ms() / 1000,
                version=__version__,
                node_id=node_id,
            )
        )

    async def _render_metrics(self, accept: str) -> tuple[bytes, str]:
        return await self._exposition.render(accept)

    async def _examine(self, look: Callable[[list[Family]], T]) -> T:
        return await self._exposition.examine(look)

    async def run(self, context: ssl.SSLContext | None) -> None:
        """Serves until a signal. context: of the HTTPS listener, None without one. Raises ConfigError, ApiError."""
        loop, server = self._loop, self._settings.server
        loop.set_exception_handler(_log_loop_error)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        self._state.log.start(loop, self._state.store.apply)
        try:
            await self._make_first_key()
            self._upkeep.start(loop)
            self._loop_lag.start(loop)
            self._status.start(loop)
            self._warn()
            await self._listeners.open_admin_socket(self._settings.storage.dir, partial(Connection, self._server, True))
            await self._listeners.open_http(server.http.address, partial(Connection, self._server))
            if context is not None:
                await self._listeners.open_https(server.https.address, partial(Connection, self._server), context)
            logger.info("serving", extra={"version": __version__})
            await self._stop.wait()
            logger.info("stopping")
        finally:
            await self._shut_down()
        logger.info("stopped")

    async def _shut_down(self) -> None:
        """Stops accepting, finishes what is in flight within `server.shutdown.timeout`, closes the log."""
        self._listeners.close()
        self._server.begin_drain()
        if not await self._server.drained(self._settings.server.shutdown.timeout_ms / 1000):
            logger.warning("requests were still in flight when server.shutdown.timeout ended; their connections were cut")
        self._loop_lag.stop()
        await self._status.stop()
        await self._upkeep.stop()
        self._authenticator.close()
        self._keys.close()
        self._exposition.close()
        await self._state.log.close()

    async def _make_first_key(self) -> None:
        """Without any API key nobody could ask for one: makes an admin key and shows it, once, when it is durable."""
        if self._keys.has_any():
            return
        created = await self._keys.create(role="admin", description="made at the first start")
        print(
            f"tokmesh: the first start made this admin key. It is shown only now; keep it.\n{created.key_id}:{created.key_secret}",
            file=sys.stderr,
            flush=True,
        )

    def _warn(self) -> None:
        for condition in posture_of(self._settings).conditions():
            logger.warning(condition.words, extra={"condition": condition.code})

    def _reload(self) -> None:
        """SIGHUP: applies what can be applied; a configuration with an error changes nothing."""
        try:
            settings = self._load().settings
        except ConfigError as error:
            for problem in error.problems:
                logger.error("configuration not reloaded", extra={"problem": str(problem)})
            return
        applied, waiting = changed_keys(self._settings, settings)
        set_level(settings.telemetry.logging.level)
        self._sessions.configure(settings.session)
        values = {key.name: value_of(settings, key) for key in applied}
        self._settings = with_values(self._settings, values)
        if waiting:
            names = [key.name for key in waiting]
            logger.warning("changes need a restart to take effect", extra={"keys": names})
        logger.info("configuration reloaded", extra={"applied": sorted(values)})


def limits_of(http: HttpSettings) -> Limits:
    """The bounds of a connection."""
    return Limits(
        max_body_bytes=http.max_body_size_bytes,
        max_head_bytes=http.max_head_size_bytes,
        max_headers=http.max_headers,
        head_timeout_ms=http.head_timeout_ms,
        min_body_bytes_per_s=http.min_body_rate_bytes_per_s,
        max_pipelined=http.max_pipelined,
        max_write_buffer_bytes=http.max_write_buffer_bytes,
        max_connections=http.max_connections,
        keepalive_timeout_ms=http.keepalive_timeout_ms,
    )


def posture_of(settings: Settings) -> Posture:
    """How a process is configured, as far as conditions judge it."""
    return Posture(
        sync_mode=settings.storage.wal.sync_mode,
        http_beyond_loopback=not settings.server.http.address.is_loopback,
        metrics_open=not settings.telemetry.metrics.auth_enabled,
        connections_max=settings.server.http.max_connections,
    )


def _log_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a callback or a forgotten future raised: a bug of ours, told once and in full."""
    error = context.get("exception")
    logger.error("unexpected: %s", context.get("message", "error"), exc_info=error)
