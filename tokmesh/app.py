"""The composition root: the only file that knows everybody. It builds a server from settings, runs it, and ends it.

Order of a start: configuration, data directory, lock of the log, listeners, replay of the log in a thread, first admin key
(durable), serving. While the log is replayed the table belongs to that thread: the loop answers probes and refuses the
rest (api/recovering.py). Order of a stop: listeners, requests in flight, periodic work, last touches, log.
"""

import asyncio
import logging
import signal
import ssl
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import NoReturn, TypeVar

import uvloop

from tokmesh import __version__
from tokmesh._core.clock import Clock
from tokmesh._core.connection import Connection
from tokmesh._core.counters import CounterBlock
from tokmesh._core.request import Request
from tokmesh._core.server import NEVER_NS, Server
from tokmesh._core.validate import Validator
from tokmesh.api.admin.audited import actor_of
from tokmesh.api.admin.cluster import ClusterHandlers
from tokmesh.api.probes import Readiness
from tokmesh.api.recovering import RecoveryGate
from tokmesh.api.route import Route
from tokmesh.api.routes import build_routes
from tokmesh.api.spool import remove_leftovers
from tokmesh.backups import Backups
from tokmesh.config import ConfigError, LiveConfig, Loaded, Settings
from tokmesh.derived import limits_of, posture_of
from tokmesh.errors import EX_FAILURE, EX_OK, ApiError
from tokmesh.host import data_directory, process
from tokmesh.host.clock_discipline import clock_synchronised
from tokmesh.host.encryption_keys import read_keys
from tokmesh.host.header_file import read_headers
from tokmesh.host.heap import HeapKeeper
from tokmesh.host.listeners import Listeners
from tokmesh.host.tls import server_context
from tokmesh.host.upkeep import Upkeep
from tokmesh.keys import Authenticator, Keys
from tokmesh.node_log import NodeLog
from tokmesh.sessions import Sessions
from tokmesh.state import State
from tokmesh.storage.segment_keys import SegmentKeys
from tokmesh.telemetry.exposition import Exposition, Scrape
from tokmesh.telemetry.gc_pauses import GcPauses
from tokmesh.telemetry.logs import JsonLinesHandler, configure_logging, reset_logging
from tokmesh.telemetry.logs.audit import AuditTrail
from tokmesh.telemetry.logs.audit_file import AuditFile
from tokmesh.telemetry.logs.level import LogLevel
from tokmesh.telemetry.logs.scope import scope_of
from tokmesh.telemetry.logs.uncaught import log_loop_error, log_uncaught
from tokmesh.telemetry.loop_lag import LoopLag
from tokmesh.telemetry.readings import Family, Propagation, Sources
from tokmesh.telemetry.resources import Resources
from tokmesh.telemetry.status import Status
from tokmesh.telemetry.tracing.switch import Tracing
from tokmesh.telemetry.watchdog import Watchdog

T = TypeVar("T")

logger = logging.getLogger("tokmesh.server")


class _Stopped(BaseException):
    """A signal asked for the end before serving began."""


def run_server(load: Callable[[bytes | None], Loaded]) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code. A node of a cluster that is to begin anew becomes a fresh process.

    load: reads the configuration, at the start and at every reload, with a given text in place of the file's. A bug that ends the
    server is told in the log; the exit code is 1. Raises ConfigError, or ApiError when the log cannot be had (another process has
    it, damage) or an address cannot be listened on.
    """
    process.harden()  # what is loaded includes a look at the private keys that it names
    loaded = load(None)
    settings = loaded.settings
    context = server_context(settings.server.https.tls) if settings.server.https.enabled else None
    keys = read_keys(settings.storage.encryption)
    trace_headers = read_headers(settings.telemetry.tracing.headers_file, "telemetry.tracing.headers_file")
    data_directory.prepare(settings.storage.dir)
    clock = Clock()
    log_handler = configure_logging(settings.telemetry.logging.level, clock.monotonic_ns)
    log_uncaught()
    process.tune(settings.server.http.max_connections, logger)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop_at_once)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        node_id = settings.cluster.node_id or data_directory.node_id(settings.storage.dir, clock)
        state = State(settings, clock, node_id, keys)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            app = App(loaded, load, state, log_handler, runner.get_loop(), trace_headers)
            runner.run(app.run(context))
        if app.begins_anew:
            reset_logging()
            process.begin_anew()
    except _Stopped:
        logger.info("stopped before serving")
    except (ApiError, ConfigError):
        raise
    except Exception:  # a bug of ours: with its stack in the log, where no secret of its text gets through
        logger.exception("unexpected: the server ends")
        return EX_FAILURE
    return EX_OK


def _stop_at_once(number: int, frame: object) -> NoReturn:
    raise _Stopped


class App:
    """One serving process."""

    _segment_keys: SegmentKeys | None = None  # read by a reload, not yet in force
    begins_anew = False  # `run` has ended for this node to begin anew, by a fresh process

    def __init__(
        self,
        loaded: Loaded,
        load: Callable[[bytes | None], Loaded],
        state: State,
        log_handler: JsonLinesHandler,
        loop: asyncio.AbstractEventLoop,
        trace_headers: Mapping[str, str],
    ) -> None:
        settings = loaded.settings
        self._config = LiveConfig(loaded, partial(self._load, load), self._apply)
        self._state = state
        self._log_handler = log_handler
        self._log_level = LogLevel(settings.telemetry.logging.level, state.clock.now_ms)
        self._audit = AuditTrail(state.clock.now_ms, AuditFile(settings.storage.dir))
        self._loop = loop
        self._stop = asyncio.Event()
        self._loop_lag = LoopLag()
        self._watchdog = Watchdog(self._loop_lag, settings.telemetry.watchdog.threshold_ms / 1000)
        self._gc_pauses = GcPauses()
        self._listeners = Listeners(loop, logger)
        counters = CounterBlock()
        self._tracing = Tracing(
            settings.telemetry.tracing, trace_headers, lambda: self._server.handling, node_id=state.node_id, version=__version__
        )
        self._propagation = Propagation()
        self._node_log = NodeLog(
            settings, state, lambda: self._server, __version__, self._propagation, partial(self._end, anew=True)
        )
        log, self._apply_record = self._tracing.in_front_of(self._node_log.log, state.store.apply)
        self._authenticator = Authenticator(state.keyring, settings.security.auth, state.clock, counters)
        self._keys = Keys(state.keyring, log, state.clock, settings.security.auth)
        self._sessions = Sessions(state.table, log, state.clock, settings.session, counters, self._node_log.everywhere)
        self._backups = Backups(state, settings.storage, __version__, self._sessions.forget_touched, settings.cluster.enabled)
        self._upkeep = Upkeep(self._node_log.sweeping(self._sessions.sweep), self._sessions.flush_touched)
        validator = Validator(state.table, counters)
        self._gate = RecoveryGate(state.progress)
        readiness = self._make_readiness()
        self._node_log.trace(self._tracing.of_publishing)
        self._status = Status(
            state.node_id, posture_of(settings), self._examine, readiness.checks, clock_synchronised, self._node_log.view
        )
        routes = build_routes(
            sessions=self._node_log.placed(self._sessions, self._tracing.of_asking()),
            keys=self._keys,
            readiness=readiness,
            validator=validator,
            counters=counters,
            clock=state.clock,
            render_metrics=self._render_metrics,
            metrics_auth_enabled=settings.telemetry.metrics.auth_enabled,
            audit=self._audit,
            log_level=self._log_level,
            config=self._config,
            summarize=self._status.summary,
            backups=self._backups,
            cluster=ClusterHandlers(self._node_log.administration, state.node_id, self._end),
        )
        self._server = self._make_server(settings, routes, validator, counters)
        self._heap = HeapKeeper(lambda: self._server.connections)
        log_handler.scope.follow(self._scope)
        self._exposition: Exposition | None = None  # reads the log, so it is made when that is replayed
        if settings.telemetry.metrics.native_histograms:
            self._count_natively()

    def _make_server(
        self, settings: Settings, routes: tuple[Route, ...], validator: Validator, counters: CounterBlock
    ) -> Server:
        server = Server(
            self._loop,
            routes,
            validator,
            self._state.clock,
            self._authenticator,
            counters,
            limits_of(settings.server.http),
            logging.getLogger("tokmesh.http"),
            allow_list=settings.security.auth.allow_list or None,
            sampler=self._tracing.sampler,
            tracer=self._tracing.tracer,
        )
        server.gate = self._gate.admit
        server.on_denied = self._denied
        return server

    def _count_natively(self) -> None:
        for block in (self._server.meter.latency, self._loop_lag.histogram, self._gc_pauses.histogram):
            block.enable_native()  # they count before the exposition is made

    def _make_readiness(self) -> Readiness:
        readiness = Readiness()
        readiness.add("recovery", self._gate.reason)
        readiness.add("storage", lambda: self._state.log.failure)
        if self._node_log.cluster is not None:
            readiness.add("cluster", self._node_log.cluster.reason)
        readiness.add("restore", self._backups.restores.reason)
        readiness.add("shutdown", lambda: "the server is stopping" if self._stop.is_set() else None)
        return readiness

    def _make_exposition(self) -> Exposition:
        state = self._state
        return Exposition(
            Sources(
                counters=self._server.counters,
                meter=self._server.meter,
                buffers=self._server,
                table=state.table,
                log=state.log,
                snapshots=self._backups.snapshots,
                authenticator=self._authenticator,
                resources=Resources(self._config.settings.storage.dir),
                loop_lag=self._loop_lag,
                watchdog=self._watchdog,
                gc_pauses=self._gc_pauses,
                log_lines=self._log_handler.stats,
                audit=self._audit,
                sampler=self._tracing.sampler,
                tracing=self._tracing.figures,
                connections_max=self._config.settings.server.http.max_connections,
                started_at=state.clock.now_ms() / 1000,
                version=__version__,
                node_id=self._state.node_id,
                propagation=self._propagation,
                cluster=self._node_log.view,
            ),
            native_histograms=self._config.settings.telemetry.metrics.native_histograms,
        )

    async def _render_metrics(self, accept: str, accept_encoding: str) -> Scrape:
        assert self._exposition is not None, "a scrape is let in when the log is replayed"
        return await self._exposition.render(accept, accept_encoding)

    async def _examine(self, look: Callable[[list[Family]], T]) -> T:
        assert self._exposition is not None, "the status is asked for when the log is replayed"
        return await self._exposition.examine(look)

    def _end(self, *, anew: bool = False) -> None:
        self.begins_anew = anew and not self._stop.is_set()  # who stops it wants no other
        self._stop.set()

    async def run(self, context: ssl.SSLContext | None) -> None:
        """Serves until a signal. context: of the HTTPS listener, None without one. Raises ConfigError, ApiError."""
        loop = self._loop
        loop.set_exception_handler(log_loop_error)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        self._apply(self._config.settings)
        try:
            self._loop_lag.start(loop)
            self._watchdog.start()
            self._gc_pauses.start()
            remove_leftovers(self._backups.directory)
            await self._listen(context)
            if not await self._state.replay_beside(loop, self._stop):
                logger.info("stopped before serving")
                return
            self._gate.replayed()
            self._exposition = self._make_exposition()
            if not await self._node_log.start(loop, self._apply_record, self._stop):
                logger.info("stopped before serving")
                return
            self._tracing.start()
            await self._make_first_key()
            self._upkeep.start(loop)
            self._heap.start(loop)
            self._status.start(loop)
            self._backups.start(loop)
            self._warn()
            loop.add_signal_handler(signal.SIGHUP, self._reload)
            self._server.gate = None
            self._gate.open()
            logger.info("serving", extra={"version": __version__})
            await self._stop.wait()
            logger.info("stopping")
        finally:
            await self._shut_down()
        logger.info("stopped")

    async def _listen(self, context: ssl.SSLContext | None) -> None:
        settings = self._config.settings
        await self._listeners.open_admin_socket(settings.storage.dir, partial(Connection, self._server, True))
        await self._listeners.open_http(settings.server.http.address, partial(Connection, self._server))
        if context is not None:
            await self._listeners.open_https(settings.server.https.address, partial(Connection, self._server), context)

    async def _shut_down(self) -> None:
        """Stops accepting, finishes what is in flight, closes the log, exports spans, in `server.shutdown.timeout` in all."""
        until_s = self._loop.time() + self._config.settings.server.shutdown.timeout_ms / 1000
        self._listeners.close()
        self._server.begin_drain()
        if not await self._server.drained(until_s - self._loop.time()):
            logger.warning("requests were still in flight when server.shutdown.timeout ended; their connections were cut")
        self._watchdog.stop()
        self._gc_pauses.stop()
        self._loop_lag.stop()
        self._heap.stop()
        await self._status.stop()
        await self._backups.stop()
        await self._upkeep.stop()
        self._authenticator.close()
        self._keys.close()
        if self._exposition is not None:
            self._exposition.close()
        await self._node_log.close()
        await self._loop.run_in_executor(None, self._tracing.close, max(0.0, until_s - self._loop.time()))
        self._config.close()
        self._log_level.close()
        self._audit.close()

    async def _make_first_key(self) -> None:
        """Without any API key nobody could ask for one: makes an admin key and shows it, once, when it is durable."""
        if self._keys.has_any():
            return
        created = await self._keys.create_first(self._node_log.first_key_id, self._stop)
        if created is None:
            return
        self._audit.record("key.created", actor="server", target=created.key_id, details={"role": "admin", "first": True})
        words = "tokmesh: the first start made this admin key. It is shown only now; keep it."
        # In one piece: log lines may go to the same place.
        sys.stderr.write(f"{words}\n{created.key_id}:{created.key_secret}\n")
        sys.stderr.flush()

    def _warn(self) -> None:
        for condition in posture_of(self._config.settings).conditions():
            logger.warning(condition.words, extra={"condition": condition.code})

    def _load(self, load: Callable[[bytes | None], Loaded], text: bytes | None) -> Loaded:
        """The configuration with what lies beside it; `text`, which may be anybody's, is only looked at. In a thread."""
        loaded = load(text)
        if text is None:
            self._segment_keys = self._state.checked_keys(read_keys(loaded.settings.storage.encryption))
        return loaded

    def _apply(self, settings: Settings) -> None:
        """Puts in force what can be changed while running."""
        if self._segment_keys is not None:
            self._state.use_keys(self._segment_keys)
            self._segment_keys = None
        logging_settings = settings.telemetry.logging
        self._log_level.configure(logging_settings.level)
        self._log_handler.repetition.lines_max = logging_settings.repeat.max
        self._log_handler.repetition.interval_ms = logging_settings.repeat.interval_ms
        slow_ms = logging_settings.slow_request_ms
        self._server.slow_ns = slow_ms * 1_000_000 if slow_ms else NEVER_NS
        self._sessions.configure(settings.session)
        self._tracing.configure(settings.telemetry.tracing)

    def _scope(self) -> dict[str, str]:
        """What a log line of this moment belongs to."""
        return scope_of(self._server.handling, self._tracing.current()) or self._node_log.scope()

    def _denied(self, request: Request, template: str, code: str) -> None:
        """An attempt at administration was refused."""
        self._audit.denied(
            actor=actor_of(request), request_id=request.request_id, address=request.peer_ip, target=template, outcome=code
        )

    def _reload(self) -> None:
        """SIGHUP."""
        self._reloading = self._loop.create_task(self._reload_by_signal())

    async def _reload_by_signal(self) -> None:
        try:
            outcome = await self._config.reload()
        except ApiError as error:  # too many wait
            logger.error("configuration not reloaded", extra={"code": error.code})
            return
        facts = {"applied": outcome.applied, "needs_restart": outcome.needs_restart, "problems": list(map(str, outcome.problems))}
        self._audit.record("config.reloaded", actor="signal", details=facts)
