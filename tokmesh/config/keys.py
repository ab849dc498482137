"""Every configuration key, once: name, default, kind, meaning, whether SIGHUP applies it.

The nested dataclasses are both the table and the type of the settings. A key's name is the path of its field without
the unit at the end of the field's name: `session.ttl.default` is `settings.session.ttl.default_ms`. KEYS is the flat
view in the order of this file. `Settings()` is the set of all defaults.

A key with `needs` belongs to a part that this version does not have. It is accepted at its default only (TM-CFG-1006
otherwise): a setting that would be ignored is refused.
"""

# ruff: noqa: RUF009 - key() and section() return dataclass fields, as dataclasses.field() does

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Final, get_type_hints

from tokmesh.config import nats_values
from tokmesh.config import values as kinds
from tokmesh.config.declaration import METADATA, Key, Row, key, section
from tokmesh.config.values import Address, Network


@dataclass(frozen=True, slots=True)
class HttpSettings:
    address: Address = key("127.0.0.1:5080", kinds.address(), "Where plain HTTP listens; port 0 lets the kernel choose")
    max_body_size_bytes: int = key("1MB", kinds.size("1KB", "1GB"), "Largest request body; beyond it 413")
    body_buffer_size_bytes: int = key(
        "64MB",
        kinds.size("1KB", "1TB"),
        "Room for all request bodies that are coming or being worked on, together; beyond it 503",
    )
    max_head_size_bytes: int = key("16KB", kinds.size("1KB", "1MB"), "Largest request line and headers together; beyond it 431")
    max_headers: int = key("64", kinds.integer(4, 1024), "Most headers of a request; beyond it 431")
    head_timeout_ms: int = key(
        "10s", kinds.duration("100ms", "10m"), "Time from the first byte of a request to the end of its head"
    )
    min_body_rate_bytes_per_s: int = key(
        "1KB/s",
        kinds.rate("0", "1GB"),
        "Slowest accepted body, over any 5 s, and slowest taking of a file, over any keepalive_timeout; 0 for no minimum",
    )
    max_pipelined: int = key(
        "32", kinds.integer(1, 1024), "Most requests of a connection answered in one turn; those behind them wait for the next"
    )
    max_write_buffer_bytes: int = key("1MB", kinds.size("16KB", "1GB"), "Unsent answers of a connection at which reading pauses")
    max_connections: int = key(
        "10000", kinds.integer(1, 1_000_000), "Most open connections; further ones are answered 503 and closed"
    )
    keepalive_timeout_ms: int = key("75s", kinds.duration("1s", "1h"), "How long a connection may stay idle between requests")


@dataclass(frozen=True, slots=True)
class TlsSettings:
    cert_file: Path | None = key("", kinds.optional_file(), "Certificate chain, PEM")
    key_file: Path | None = key("", kinds.optional_file(), "Private key of the certificate, PEM, without a passphrase")
    client_ca_file: Path | None = key(
        "", kinds.optional_file(), "Authorities of client certificates, PEM; when set, every client must present one"
    )


@dataclass(frozen=True, slots=True)
class HttpsSettings:
    enabled: bool = key("false", kinds.boolean(), "Whether HTTPS listens beside HTTP")
    address: Address = key("127.0.0.1:5443", kinds.address(), "Where HTTPS listens")
    tls: TlsSettings = section(TlsSettings)


@dataclass(frozen=True, slots=True)
class ShutdownSettings:
    timeout_ms: int = key("30s", kinds.duration("0ms", "1h"), "How long a stop waits for requests in flight")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    http: HttpSettings = section(HttpSettings)
    https: HttpsSettings = section(HttpsSettings)
    workers: int | str = key(
        "1", kinds.number_or("auto", 1, 1024), "Processes that serve; auto is one a core", needs="several workers"
    )
    shutdown: ShutdownSettings = section(ShutdownSettings)


@dataclass(frozen=True, slots=True)
class TtlSettings:
    default_ms: int = key("2h", kinds.duration("1s", "3650d"), "Life of a session that does not ask for another", reloadable=True)
    max_ms: int = key("720h", kinds.duration("1s", "3650d"), "Longest life a session may ask for", reloadable=True)


@dataclass(frozen=True, slots=True)
class QuotaSettings:
    max_per_user: int = key("50", kinds.integer(1, 100_000), "Most live sessions of one user", reloadable=True)
    policy: str = key(
        "reject",
        kinds.choice("reject", "evict_oldest"),
        "What happens to one session more: refuse it, or revoke the oldest",
        reloadable=True,
    )


@dataclass(frozen=True, slots=True)
class SessionSettings:
    ttl: TtlSettings = section(TtlSettings)
    quota: QuotaSettings = section(QuotaSettings)
    tombstone_ttl_ms: int = key("10m", kinds.duration("1s", "24h"), "How long an ended session is remembered as expired or revoked")


@dataclass(frozen=True, slots=True)
class WalSettings:
    sync_mode: str = key(
        "always",
        kinds.choice("always", "interval"),
        "always: an answer follows its fdatasync; interval: it may precede it",
    )
    sync_interval_ms: int = key(
        "100ms", kinds.duration("1ms", "1m"), "Longest time between fdatasyncs in interval mode: what a crash may lose"
    )
    segment_size_bytes: int = key("64MB", kinds.size("1MB", "1GB"), "Size at which the log starts a new file")


@dataclass(frozen=True, slots=True)
class SnapshotSettings:
    interval_ms: int = key("1h", kinds.duration("1m", "30d"), "Longest time between snapshots")
    threshold_bytes: int = key("1GB", kinds.size("1MB", "1TB"), "Log size that makes a snapshot due")
    retention_count: int = key("5", kinds.integer(1, 1000), "Snapshots kept")
    retention_days: int = key("7", kinds.integer(1, 3650), "Days a snapshot is kept")


@dataclass(frozen=True, slots=True)
class BackupSettings:
    max_upload_size_bytes: int = key("64GB", kinds.size("1KB", "1TB"), "Largest uploaded backup; beyond it 413")


@dataclass(frozen=True, slots=True)
class EncryptionSettings:
    enabled: bool = key("false", kinds.boolean(), "Whether what is written is encrypted; needs `pip install tokmesh[encryption]`")
    key_file: Path | None = key("", kinds.optional_file(), "Keys, one a line, the first for what is written", reloadable=True)
    key_command: tuple[str, ...] = key("[]", kinds.command(), "Command that prints such keys", reloadable=True)
    key_command_timeout_ms: int = key("10s", kinds.duration("100ms", "10m"), "Time the command has", reloadable=True)
    key_variable: str = key(
        "",
        kinds.pattern(r"((?!TOKMESH_)[A-Za-z_][A-Za-z0-9_]{0,127})?", "a name that does not begin with TOKMESH_, or empty"),
        "Variable of the environment that holds such keys",
        reloadable=True,
    )


@dataclass(frozen=True, slots=True)
class StorageSettings:
    dir: Path = key("./tokmesh-data", kinds.directory(), "Everything durable, and the administration socket; made with mode 0700")
    wal: WalSettings = section(WalSettings)
    snapshot: SnapshotSettings = section(SnapshotSettings)
    backup: BackupSettings = section(BackupSettings)
    encryption: EncryptionSettings = section(EncryptionSettings)


@dataclass(frozen=True, slots=True)
class Argon2Settings:
    memory_kib: int = key("16384", kinds.integer(8192, 1_048_576, "_kib"), "Memory of one verification, in KB")
    iterations: int = key("2", kinds.integer(1, 32), "Passes of one verification")
    parallelism: int = key("1", kinds.integer(1, 16), "Lanes of one verification")


@dataclass(frozen=True, slots=True)
class AuthSettings:
    allow_list: tuple[Network, ...] = key(
        "[]",
        kinds.networks(),
        "Addresses that may use API keys, beside the list a key may have of its own; empty for all",
    )
    cache_ttl_ms: int = key("60s", kinds.duration("1s", "1h"), "How long a verified key needs no second verification")
    cache_capacity: int = key("10000", kinds.integer(1, 1_000_000), "Verified keys remembered")
    rotation_grace_ms: int = key(
        "1h",
        kinds.duration("0ms", "30d"),
        "How long an old secret works after its rotation",
        needs="rotation of API keys",
    )
    argon2: Argon2Settings = section(Argon2Settings)


@dataclass(frozen=True, slots=True)
class AntiReplaySettings:
    enabled: bool = key("false", kinds.boolean(), "Whether requests carry a timestamp and a nonce", needs="replay protection")
    timestamp_window_ms: int = key("30s", kinds.duration("1s", "1h"), "Accepted age of a timestamp", needs="replay protection")
    nonce_ttl_ms: int = key("60s", kinds.duration("1s", "1h"), "How long a nonce is remembered", needs="replay protection")
    nonce_cache_size: int = key("100000", kinds.integer(1, 10_000_000), "Nonces remembered", needs="replay protection")


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    trusted_proxies: tuple[Network, ...] = key(
        "[]", kinds.networks(), "Proxies whose forwarded addresses are believed", needs="trusted proxies"
    )


@dataclass(frozen=True, slots=True)
class SecuritySettings:
    auth: AuthSettings = section(AuthSettings)
    anti_replay: AntiReplaySettings = section(AntiReplaySettings)
    network: NetworkSettings = section(NetworkSettings)


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    auth_enabled: bool = key("true", kinds.boolean(), "Whether /metrics asks for an API key; turn it off on closed networks only")
    native_histograms: bool = key(
        "false", kinds.boolean(), "Whether a scrape that asks for protobuf gets native histograms beside the classic buckets"
    )


@dataclass(frozen=True, slots=True)
class RepeatSettings:
    max: int = key(
        "20", kinds.integer(0, 1_000_000), "Equal log lines of an interval; more are counted; 0 for no limit", reloadable=True
    )
    interval_ms: int = key("10s", kinds.duration("100ms", "1h"), "How long equal log lines are counted together", reloadable=True)


@dataclass(frozen=True, slots=True)
class LoggingSettings:
    level: str = key(
        "info",
        kinds.choice("debug", "info", "warn", "error", aliases={"warning": "warn"}),
        "Lowest level that is logged",
        reloadable=True,
    )
    slow_request_ms: int = key(
        "500ms", kinds.duration("0ms", "1h"), "Requests that take as long are logged with their phases; 0 for none", reloadable=True
    )
    repeat: RepeatSettings = section(RepeatSettings)


@dataclass(frozen=True, slots=True)
class TracingSettings:
    enabled: bool = key("false", kinds.boolean(), "Whether requests are traced; needs `pip install tokmesh[otel]`")
    endpoint: str = key("", kinds.optional_url(), "OTLP/HTTP receiver of spans; without a path, /v1/traces is meant")
    headers_file: Path | None = key(
        "", kinds.optional_file(), "Headers sent to the receiver, one `Name: value` a line; for its credentials"
    )
    sampling_ratio: float = key("0.01", kinds.fraction(), "Share traced of the requests that bring no traceparent", reloadable=True)
    max_traces_per_second: int = key(
        "100", kinds.integer(1, 100_000), "Most requests traced a second, whoever decided to trace them", reloadable=True
    )
    queue_size: int = key("4096", kinds.integer(64, 1_000_000), "Spans that may wait for the receiver; more are dropped")
    export_interval_ms: int = key("1s", kinds.duration("50ms", "1m"), "How often waiting spans are sent")
    export_timeout_ms: int = key("10s", kinds.duration("100ms", "1m"), "Time the receiver has to answer")


@dataclass(frozen=True, slots=True)
class WatchdogSettings:
    threshold_ms: int = key(
        "1s", kinds.duration("200ms", "1h"), "How long the event loop may be held before the stack that holds it is logged"
    )


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    metrics: MetricsSettings = section(MetricsSettings)
    logging: LoggingSettings = section(LoggingSettings)
    tracing: TracingSettings = section(TracingSettings)
    watchdog: WatchdogSettings = section(WatchdogSettings)


@dataclass(frozen=True, slots=True)
class NatsTlsSettings:
    ca_file: Path | None = key("", kinds.optional_file(), "Authorities of the NATS servers, PEM")
    cert_file: Path | None = key("", kinds.optional_file(), "Client certificate, PEM")
    key_file: Path | None = key("", kinds.optional_file(), "Private key of the client certificate, PEM")


@dataclass(frozen=True, slots=True)
class NatsSettings:
    servers: tuple[str, ...] = key("[]", nats_values.nats_servers(), "NATS servers")
    replicas: int = key(
        "3", nats_values.replicas(), "NATS servers that hold the stream, when it is made here; 1 survives no failure"
    )
    credentials_file: Path | None = key("", kinds.optional_file(), "NATS credentials: a .creds file, or the seed of an nkey")
    tls: NatsTlsSettings = section(NatsTlsSettings)


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    enabled: bool = key("false", kinds.boolean(), "Whether this node is one of many; needs `pip install tokmesh[cluster]`")
    name: str = key(
        "tokmesh",
        kinds.pattern(r"[a-z0-9-]{1,32}", "1 to 32 of a-z, 0-9 and -"),
        "Name of the cluster",
    )
    node_id: str = key(
        "",
        kinds.pattern(r"(tmnd-[a-z0-9-]{1,58})?", "tmnd- and 1 to 58 of a-z, 0-9 and -, or empty"),
        "Identity of this node; empty: made once and kept in the data directory",
    )
    nats: NatsSettings = section(NatsSettings)
    streams: int = key("1", kinds.integer(1, 4), "JetStream streams; docs/cluster-sizing.md tells why one", needs="several streams")
    replication_factor: int | str = key("all", kinds.number_or("all", 1, 64), "Nodes that hold a session, the same on all nodes")
    max_staleness_ms: int = key(
        "2s",
        kinds.duration("500ms", "1m"),
        "Longest time a node answers without proof that it is current",
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a process, checked. Immutable: a reload makes another."""

    server: ServerSettings = section(ServerSettings)
    session: SessionSettings = section(SessionSettings)
    storage: StorageSettings = section(StorageSettings)
    security: SecuritySettings = section(SecuritySettings)
    telemetry: TelemetrySettings = section(TelemetrySettings)
    cluster: ClusterSettings = section(ClusterSettings)


def _walk(owner: type, names: tuple[str, ...], path: tuple[str, ...]) -> Iterator[Key]:
    hints = get_type_hints(owner)
    for declared in fields(owner):
        row: Row | None = declared.metadata.get(METADATA)
        if row is not None:
            name = declared.name.removesuffix(row.kind.suffix)
            yield Key(".".join((*names, name)), (*path, declared.name), row)
        else:
            assert is_dataclass(hints[declared.name]), f"{owner.__name__}.{declared.name} is neither key nor section"
            yield from _walk(hints[declared.name], (*names, declared.name), (*path, declared.name))


KEYS: Final[tuple[Key, ...]] = tuple(_walk(Settings, (), ()))
KEYS_BY_NAME: Final[dict[str, Key]] = {each.name: each for each in KEYS}
KEYS_BY_ENVIRONMENT: Final[dict[str, Key]] = {each.environment: each for each in KEYS}
SECTIONS: Final[frozenset[str]] = frozenset(
    ".".join(each.name.split(".")[:depth]) for each in KEYS for depth in range(1, each.name.count(".") + 1)
)


def build_settings(values: dict[str, Any]) -> Settings:
    """Settings from parsed values by key name; keys not named have their defaults."""
    by_path = {KEYS_BY_NAME[name].field_path: value for name, value in values.items()}

    def build(owner: type, path: tuple[str, ...]) -> Any:
        hints = get_type_hints(owner)
        arguments: dict[str, Any] = {}
        for declared in fields(owner):
            here = (*path, declared.name)
            if declared.metadata.get(METADATA) is None:
                arguments[declared.name] = build(hints[declared.name], here)
            elif here in by_path:
                arguments[declared.name] = by_path[here]
        return owner(**arguments)

    settings = build(Settings, ())
    assert isinstance(settings, Settings)
    return settings


def value_of(settings: Settings, each: Key) -> Any:
    """The typed value of a key."""
    value: Any = settings
    for name in each.field_path:
        value = getattr(value, name)
    return value


def with_values(settings: Settings, values: dict[str, Any]) -> Settings:
    """The same settings but for the keys named."""
    return build_settings({**{each.name: value_of(settings, each) for each in KEYS}, **values})
