"""What parts of the server are told of the settings: plain translations."""

from tokmesh._core.server import Limits
from tokmesh.config import Settings
from tokmesh.config.keys import HttpSettings
from tokmesh.telemetry.status import Posture


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
        max_buffered_bytes=http.body_buffer_size_bytes,
    )


def posture_of(settings: Settings) -> Posture:
    """How a process is configured, as far as conditions judge it."""
    return Posture(
        sync_mode=settings.storage.wal.sync_mode,
        http_beyond_loopback=not settings.server.http.address.is_loopback,
        metrics_open=not settings.telemetry.metrics.auth_enabled,
        connections_max=settings.server.http.max_connections,
    )
