"""The table of routes: method, template, role, handler. What is not here does not exist.

Templates are also the closed set of the `route` label of metrics. A placeholder stands for one path segment,
percent-decoded once by the wire path and handed over in `request.params`. The role is checked before the handler runs;
a role admits those above it (docs/api.md, "Keys and roles"): `validator` admits validator, issuer and admin; `issuer` issuer
and admin; `metrics` metrics and admin.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from tokmesh._core.clock import Clock
from tokmesh._core.counters import CounterBlock
from tokmesh._core.validate import Validator
from tokmesh.api.admin.audit import AuditHandlers
from tokmesh.api.admin.audited import Audited
from tokmesh.api.admin.backups import backup_routes
from tokmesh.api.admin.cluster import ClusterHandlers, cluster_routes
from tokmesh.api.admin.config import ConfigHandlers
from tokmesh.api.admin.keys import KeyHandlers
from tokmesh.api.admin.log_level import LogLevelHandlers
from tokmesh.api.admin.status import StatusHandlers
from tokmesh.api.console import ConsoleHandlers
from tokmesh.api.metrics import MetricsHandler, RenderMetrics
from tokmesh.api.probes import ProbeHandlers, Readiness
from tokmesh.api.route import Route
from tokmesh.api.sessions import SessionHandlers
from tokmesh.api.tokens import TokenHandlers
from tokmesh.api.users import UserHandlers
from tokmesh.backups import Backups
from tokmesh.config import LiveConfig
from tokmesh.keys import Keys
from tokmesh.sessions import SessionOperations
from tokmesh.telemetry.logs.audit import AuditTrail
from tokmesh.telemetry.logs.level import LogLevel


def build_routes(
    *,
    sessions: SessionOperations,
    keys: Keys,
    readiness: Readiness,
    validator: Validator,
    counters: CounterBlock,
    clock: Clock,
    render_metrics: RenderMetrics,
    metrics_auth_enabled: bool,
    audit: AuditTrail,
    log_level: LogLevel,
    config: LiveConfig,
    summarize: Callable[[], Awaitable[dict[str, Any]]],
    backups: Backups,
    cluster: ClusterHandlers,
) -> tuple[Route, ...]:
    """Every route of this version.

    validator, counters: one pair, shared with the wire path.
    render_metrics: see `MetricsHandler`.
    summarize: the status of this node. backups: its snapshots and restores. cluster: what answers for the cluster.
    """
    session = SessionHandlers(sessions)
    user = UserHandlers(sessions)
    token = TokenHandlers(sessions, validator, counters, clock)
    probe = ProbeHandlers(readiness)
    metrics = MetricsHandler(render_metrics)
    key = KeyHandlers(keys)
    audited = Audited(audit)
    level = LogLevelHandlers(log_level)
    configuration = ConfigHandlers(config)
    status = StatusHandlers(summarize)
    console = ConsoleHandlers()
    return (
        Route("POST", "/tokens/validate", "validator", token.validate),
        Route("POST", "/tokens/validate/batch", "validator", token.validate_batch),
        Route("POST", "/tokens/rotate", "issuer", token.rotate),
        Route("POST", "/sessions", "issuer", session.create),
        Route("GET", "/sessions", "issuer", session.list),
        Route("GET", "/sessions/{session_id}", "validator", session.get),
        Route("POST", "/sessions/{session_id}/touch", "issuer", session.touch),
        Route("POST", "/sessions/{session_id}/renew", "issuer", session.renew),
        Route("POST", "/sessions/{session_id}/update", "issuer", session.update),
        Route("POST", "/sessions/{session_id}/revoke", "issuer", session.revoke),
        Route("POST", "/users/{user_id}/sessions/revoke", "issuer",
              audited("user.sessions_revoked", user.revoke_sessions, facts=lambda _, data: data)),
        Route("GET", "/metrics", "metrics" if metrics_auth_enabled else "none", metrics.scrape),
        Route("GET", "/health", "none", probe.health),
        Route("GET", "/ready", "none", probe.ready),
        Route("GET", "/console", "admin", console.page, console.sign_in),
        Route("GET", "/console/{file}", "none", console.file),
        Route("GET", "/console/runbooks/{file}", "none", console.runbook),
        Route("GET", "/admin/v1/status/summary", "admin", status.summary),
        Route("GET", "/admin/v1/keys", "admin", key.list),
        Route("POST", "/admin/v1/keys", "admin", audited("key.created", key.create, target="key_id")),
        Route("POST", "/admin/v1/keys/{key_id}/status", "admin",
              audited("key.status_changed", key.set_status, facts=lambda _, data: {"status": data["status"]})),
        *backup_routes(backups, audited),
        *cluster_routes(cluster, audited),
        Route("GET", "/admin/v1/log-level", "admin", level.get),
        Route("POST", "/admin/v1/log-level", "admin", audited("log_level.changed", level.set, facts=lambda _, data: data)),
        Route("GET", "/admin/v1/config", "admin", configuration.get),
        Route("POST", "/admin/v1/config/validate", "admin", configuration.validate),
        Route("POST", "/admin/v1/config/reload", "admin",
              audited("config.reloaded", configuration.reload, facts=lambda _, data: data)),
        Route("GET", "/admin/v1/audit/logs", "admin", AuditHandlers(audit).list),
    )  # fmt: skip
