"""Traces: spans of sampled requests, exported by OTLP/HTTP. Optional, off by default; then nothing but
`switch.py` and `figures.py` is imported, and the wire path pays one decrement a request.

    wire path ── Sampler (_core/sampling) says which request ──► Tracer ─► RequestTrace ─► Span
                                                                                            │ ended
    log ── TracedLog ── a span a proposal of a traced request ──────────────────────────────┤
                                                                                            ▼
                                        Exporter: bounded queue, thread of its own ─► otlp ─► Receiver ─► OTLP/HTTP

`tokmesh.telemetry.tracing.otlp` is the only module that imports OpenTelemetry (opentelemetry-proto: the messages).
"""
