"""Rows of the catalogue about what clients ask for: sessions, tokens, requests, API keys, connections.

`catalog.py` puts them together with the others and says what holds for all of them.
"""

from typing import Final

from tokmesh._core.histogram import LATENCY_BOUNDS_NS
from tokmesh._core.meter import METHODS, STATUS_CLASSES, STATUSES
from tokmesh.telemetry.metric import Group, Label, MetricSpec, Usage, counter, gauge, seconds

# Bounds of what crosses the network, perhaps often: up to 30 s, with the objective's 2 s exact.
PROPAGATION_BOUNDS_NS: Final = (
    500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000, 100_000_000, 250_000_000, 500_000_000,
    1_000_000_000, 2_000_000_000, 5_000_000_000, 10_000_000_000, 30_000_000_000,
)  # fmt: skip

METHOD: Final = Label("method", METHODS)
ROUTE: Final = Label("route", bound="the templates of the route table, and `unmatched`")
STATUS: Final = Label("status", (*(str(status) for status in STATUSES), "other"))
STATUS_CLASS: Final = Label("status", STATUS_CLASSES)
AUTH_RESULTS: Final = (
    "ok", "missing", "malformed", "invalid", "disabled", "expired", "role", "address", "rate_limited", "overloaded",
)  # fmt: skip
REJECT_REASONS: Final = (
    "parse", "head_size", "header_count", "host", "target", "version", "transfer_encoding", "expect", "upgrade",
    "body_size", "head_timeout", "body_rate", "write_buffer", "buffered_bytes",
)  # fmt: skip


def session_metrics() -> list[MetricSpec]:
    group: Group = "Sessions and tokens"
    return [
        gauge(
            group, "sessions_active_total", "Sessions that are valid now, exact to one second.",
            stability="stable",
            usage=Usage(
                "max by (job) (tokmesh_sessions_active_total)",
                "Follows the users of the services behind it. A sudden fall without as many revocations means that "
                "clients no longer create sessions, or that a node lost its data directory.",
            ),
        ),
        counter(
            group, "token_validate_calls_total",
            "Tokens validated: valid; invalid (a definite no: unknown, expired, revoked or malformed); error (no "
            "answer given).",
            Label("result", ("valid", "invalid", "error")), stability="stable",
            usage=Usage(
                'sum by (result) (rate(tokmesh_token_validate_calls_total[5m]))',
                "Any `error` keeps users out: look at readiness and logs. A growing share of `invalid` is a client "
                "with stale tokens, or somebody guessing.",
            ),
        ),
        counter(
            group, "session_create_total", "Sessions created.",
            stability="stable",
            usage=Usage(
                "sum(rate(tokmesh_session_create_total[5m]))",
                "Logins a second. Compare with the same hour of the day before.",
            ),
        ),
        counter(group, "session_renew_total", "Sessions renewed."),
        counter(group, "session_update_total", "Sessions whose data was updated."),
        counter(group, "session_revoke_total", "Sessions revoked, one by one or all of a user."),
        counter(
            group, "session_evict_total",
            "Sessions ended to make room for a new one under quota policy evict_oldest.",
        ),
        counter(group, "token_rotate_total", "Tokens replaced by rotation."),
        gauge(
            group, "session_expiry_backlog",
            "Sessions past their end that the sweeper has yet to clear; they are already invalid.",
        ),
    ]  # fmt: skip


def revocation_metrics() -> list[MetricSpec]:
    group: Group = "Sessions and tokens"
    return [
        gauge(
            group, "session_revoke_pending",
            "Revocations committed but not yet known to be refused on every live node.",
            stability="stable",
            usage=Usage(
                "max(tokmesh_session_revoke_pending)",
                "Returns to 0 within seconds. If it only grows, a node does not follow the log.",
            ),
        ),
        gauge(
            group, "session_revoke_oldest_pending_seconds",
            "Age of the oldest revocation counted by tokmesh_session_revoke_pending; 0 when there is none.",
            stability="stable", unit="seconds",
            usage=Usage(
                "max(tokmesh_session_revoke_oldest_pending_seconds) > 2",
                "A revocation that never completes leaves no sample in the histogram of lags; this age shows it.",
            ),
        ),
        seconds(
            group, "session_revoke_propagation_lag_seconds",
            "Time from a revocation's commit until every live node refuses the session. Empty on one node, which "
            "refuses at commit.",
            bounds_ns=PROPAGATION_BOUNDS_NS, stability="stable",
            usage=Usage(
                "histogram_quantile(0.99, sum by (le) "
                "(rate(tokmesh_session_revoke_propagation_lag_seconds_bucket[5m])))",
                "The objective is 2 s. Above it, look at tokmesh_replication_lag_seconds for the node that is late.",
            ),
        ),
    ]  # fmt: skip


def api_metrics() -> list[MetricSpec]:
    group: Group = "API"
    return [
        counter(
            group, "api_requests_total",
            "Requests answered, by the template of their route.",
            METHOD, ROUTE, STATUS, stability="stable",
            usage=Usage(
                'sum(rate(tokmesh_api_requests_total{status=~"5.."}[5m])) / sum(rate(tokmesh_api_requests_total[5m]))',
                "The share of requests without an answer of use. 503 is overload or a log that takes no writes; 500 is "
                "a bug, and its log line carries the request id.",
            ),
        ),
        seconds(
            group, "api_request_duration_seconds",
            "Time from a complete request to its answer, by class of status.",
            METHOD, ROUTE, STATUS_CLASS, bounds_ns=LATENCY_BOUNDS_NS, stability="stable",
            usage=Usage(
                "histogram_quantile(0.99, sum by (le) (rate(tokmesh_api_request_duration_seconds_bucket"
                '{route="/tokens/validate"}[5m])))',
                "Validation takes far less than 1 ms; above 100 ms something holds the event loop or the processor. "
                "Creates and revokes wait for fdatasync.",
            ),
        ),
    ]  # fmt: skip


def key_metrics() -> list[MetricSpec]:
    group: Group = "API keys"
    return [
        counter(
            group, "api_key_auth_total",
            "Checks of an API key: ok, or why the request was refused.",
            Label("result", AUTH_RESULTS), stability="stable",
            usage=Usage(
                'sum(rate(tokmesh_api_key_auth_total{result!="ok"}[5m])) / sum(rate(tokmesh_api_key_auth_total[5m]))',
                "Above 5 % a client has a wrong or expired key, or somebody tries keys. `overloaded` means that "
                "Argon2id had no room: a flood of credentials not seen before.",
            ),
        ),
        counter(
            group, "api_key_argon2_runs_total",
            "Argon2id verifications run; each costs milliseconds of CPU and 16 MiB.",
        ),
        counter(
            group, "api_key_prefilter_rejects_total",
            "Wrong secrets turned away by the keyed hash, without running Argon2id.",
        ),
        counter(group, "api_key_cache_hits_total", "Credentials found in the cache of verified credentials."),
        counter(group, "api_key_cache_misses_total", "Credentials not found in the cache of verified credentials."),
        gauge(group, "api_key_cache_entries", "Verified credentials in the cache."),
        gauge(
            group, "api_key_argon2_pending",
            "Argon2id verifications running or waiting; bounded, beyond which requests get 503.",
        ),
    ]  # fmt: skip


def connection_metrics() -> list[MetricSpec]:
    group: Group = "Connections"
    return [
        counter(group, "connections_opened_total", "Client connections accepted."),
        counter(group, "connections_closed_total", "Client connections closed, by either side."),
        counter(
            group, "connections_refused_total",
            "Client connections refused because server.http.max_connections were open.",
            usage=Usage(
                "increase(tokmesh_connections_refused_total[10m]) > 0",
                "Clients open a connection for each request instead of keeping one, or the limit is too low.",
            ),
        ),
        gauge(
            group, "connections_open", "Client connections open now.",
            usage=Usage(
                "tokmesh_connections_open / tokmesh_connections_max > 0.8",
                "At the limit further clients are answered 503. Raise server.http.max_connections, or add a node.",
            ),
        ),
        gauge(group, "connections_max", "Client connections that may be open at once."),
        counter(
            group, "http_rejects_total",
            "Requests refused before they reached a route, by the rule they broke.",
            Label("reason", REJECT_REASONS),
        ),
        counter(
            group, "http_heads_total",
            "Request heads: parsed, or equal byte for byte to the one before and remembered.",
            Label("source", ("parsed", "remembered")),
        ),
        gauge(
            group, "http_buffered_bytes",
            "Room taken by request bodies that are coming or being worked on; server.http.body_buffer_size bounds it.",
            unit="bytes",
        ),
        counter(group, "http_received_bytes_total", "Bytes received from clients.", unit="bytes"),
        counter(group, "http_sent_bytes_total", "Bytes sent to clients.", unit="bytes"),
    ]  # fmt: skip
