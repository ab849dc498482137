"""The last minutes of a node: samples of its counters, and what happened between two of them.

Invariants: samples are at least SAMPLE_SECONDS apart and cover WINDOW_SECONDS, so their number is bounded; a difference
is always between two samples of one process, so that no counter ever runs backwards.
"""

from collections import deque
from typing import Final, NamedTuple

from tokmesh.telemetry.numbers import Buckets, Numbers

SAMPLE_SECONDS: Final = 5.0
WINDOW_SECONDS: Final = 300.0
VALIDATE_ROUTE: Final = "/tokens/validate"
# As the alert rules count: what was presented and judged, and of that what was a definite no to the key itself.
_KEY_NOT_JUDGED: Final = ("missing", "overloaded")
_KEY_FAILURES: Final = ("malformed", "invalid", "disabled", "expired")
# Nobody's requests: probes answer 503 by design, and scrapes would hide errors among themselves.
_UNGUARDED: Final = ("/health", "/ready", "/metrics", "unmatched")

_REQUESTS: Final = "tokmesh_api_requests_total"
_SERVER_ERRORS: Final = "5*"
_DURATIONS: Final = "tokmesh_api_request_duration_seconds"


class Sample(NamedTuple):
    """Counters at one moment. at: monotonic seconds. errors: answers of class 5xx. guarded: without probes and scrapes."""

    at: float
    requests: float
    errors: float
    guarded_requests: float
    guarded_errors: float
    validations: dict[str, float]  # by verdict
    key_checks: float
    key_failures: float
    key_checks_overloaded: float
    cpu_seconds: float
    connections_refused: float
    log_lines_dropped: float
    latency: Buckets
    validate_latency: Buckets
    sync_latency: Buckets
    loop_lag: Buckets


def sample(numbers: Numbers, at: float) -> Sample:
    """The counters among numbers taken `at` (monotonic seconds)."""
    checks = numbers.by("tokmesh_api_key_auth_total", "result")
    requests, errors = numbers.by(_REQUESTS, "route"), numbers.by(_REQUESTS, "route", status=_SERVER_ERRORS)
    return Sample(
        at=at,
        requests=sum(requests.values()),
        errors=sum(errors.values()),
        guarded_requests=_guarded(requests),
        guarded_errors=_guarded(errors),
        validations=numbers.by("tokmesh_token_validate_calls_total", "result"),
        key_checks=sum(count for result, count in checks.items() if result not in _KEY_NOT_JUDGED),
        key_failures=sum(checks[result] for result in _KEY_FAILURES),
        key_checks_overloaded=checks["overloaded"],
        cpu_seconds=numbers.number("process_cpu_seconds_total"),
        connections_refused=numbers.number("tokmesh_connections_refused_total"),
        log_lines_dropped=numbers.number("tokmesh_log_lines_dropped_total"),
        latency=numbers.buckets(_DURATIONS),
        validate_latency=numbers.buckets(_DURATIONS, route=VALIDATE_ROUTE),
        sync_latency=numbers.buckets("tokmesh_wal_fsync_duration_seconds"),
        loop_lag=numbers.buckets("tokmesh_event_loop_lag_seconds"),
    )


def _guarded(by_route: dict[str, float]) -> float:
    return sum(count for route, count in by_route.items() if route not in _UNGUARDED)


class Trends:
    """Remembers samples in the order of their time."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=int(WINDOW_SECONDS / SAMPLE_SECONDS) + 1)

    def note(self, taken: Sample) -> None:
        """Remembers a sample, unless the newest one is not yet SAMPLE_SECONDS old."""
        if not self._samples or taken.at - self._samples[-1].at >= SAMPLE_SECONDS:
            self._samples.append(taken)

    def before(self, now: Sample, window_seconds: float) -> Sample:
        """The oldest sample within the window that ends now; `now` itself when there is none."""
        return next((each for each in self._samples if 0 < now.at - each.at <= window_seconds), now)
