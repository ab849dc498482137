"""The native variant of the quantile rules, in a real Prometheus that scrapes native histograms.

Debian's promtool (2.42) parses the rules, but its unit tests cannot write native histograms as input series: so the rules are
shown on a live Prometheus, fed by a target that speaks the protobuf exposition.
"""

import http.server
import math
import struct
import threading
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.observability.prometheus import PrometheusProcess
from tests.observability.time_scale import NATIVE, RULES, scaled_rules

FACTOR: Final = 60  # 5 minutes take 5 seconds: 10 scrapes
SCHEMA: Final = 3  # eight buckets an octave
FAST_S, SLOW_S, SLOW_SHARE = 0.010, 1.0, 0.1
CONTENT_TYPE: Final = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"


def varint(number: int) -> bytes:
    encoded = b""
    while number > 0x7F:
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return encoded + bytes([number])


def field(number: int, value: int | float | str | bytes) -> bytes:
    """A protobuf field: varint, double, or length-delimited, by the type of its value."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def zigzag(number: int) -> int:
    return number << 1 if number >= 0 else (-number << 1) - 1


def native_histogram(counts: dict[float, int]) -> bytes:
    """A Histogram message of `counts` observations of each value (seconds): one span and one bucket a value."""
    message = field(1, sum(counts.values())) + field(2, float(sum(value * count for value, count in counts.items())))
    message += field(5, zigzag(SCHEMA)) + field(6, 2.0**-128)
    index_due = previous = 0
    spans, deltas = b"", b""
    for value, count in sorted(counts.items()):
        index = math.ceil(math.log2(value) * 2**SCHEMA)
        spans += field(12, field(1, zigzag(index - index_due)) + field(2, 1))
        deltas += field(13, zigzag(count - previous))
        index_due, previous = index + 1, count
    return message + spans + deltas


def family(name: str, labels: dict[str, str], histogram: bytes) -> bytes:
    """A MetricFamily of one histogram, with its length before it."""
    pairs = b"".join(field(1, field(1, label) + field(2, value)) for label, value in labels.items())
    message = field(1, name) + field(2, "Help.") + field(3, 4) + field(4, pairs + field(7, histogram))
    return varint(len(message)) + message


class Target:
    """Each scrape sees a thousand observations more, SLOW_SHARE of them slow."""

    def __init__(self) -> None:
        scrapes = 0

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                nonlocal scrapes
                scrapes += 1
                slow = round(1000 * SLOW_SHARE) * scrapes
                histogram = native_histogram({FAST_S: 1000 * scrapes - slow, SLOW_S: slow})
                route = {"method": "POST", "route": "/tokens/validate", "status": "2xx"}
                body = family("tokmesh_api_request_duration_seconds", route, histogram)
                for name in ("wal_fsync_duration", "event_loop_lag", "session_revoke_propagation_lag", "gossip_propagation_lag"):
                    body += family(f"tokmesh_{name}_seconds", {}, histogram)
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


def test_the_native_rules_record_what_the_classic_ones_would(tmp_path: Path) -> None:
    rules = scaled_rules(RULES / NATIVE, FACTOR)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    configuration = {"global": {"evaluation_interval": "500ms"}, "rule_files": [str(tmp_path / "rules.yaml")]}
    bucket_ratio = 2 ** (1 / 2**SCHEMA)  # a quantile lies within the bucket of the value
    target = Target()
    try:
        with PrometheusProcess(
            tmp_path / "prometheus", f"127.0.0.1:{target.server.server_port}",
            configuration=configuration, features=["native-histograms"],
        ) as prometheus:  # fmt: skip
            for group in rules["groups"]:
                for rule in group["rules"]:
                    [(labels, value)] = prometheus.wait_for(f"{rule['record']} >= 0")
                    assert labels["job"] == "tokmesh"
                    if "p50" in rule["record"]:
                        assert FAST_S / bucket_ratio <= value <= FAST_S * bucket_ratio
                    elif ":ratio_" in rule["record"]:
                        assert value == pytest.approx(SLOW_SHARE, abs=1e-6)
                    else:
                        assert SLOW_S / bucket_ratio <= value <= SLOW_S * bucket_ratio
            assert not prometheus.query('{__name__=~".+_bucket"}'), "no classic buckets were there to help"
    finally:
        target.close()
