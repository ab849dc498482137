"""Negotiation of format and coding, by headers of every kind."""

import pytest

from tokmesh.telemetry.negotiation import OPENMETRICS, PROTOBUF, TEXT, Format, accepts_gzip, choose_format

PROTO = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_2_42_NATIVE = (
    f"{PROTO},application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3_NATIVE = (
    f"{PROTO};escaping=allow-utf-8;q=0.7,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/*", TEXT),
        ("application/*", OPENMETRICS),
        ("text/plain", TEXT),
        ("text/plain;version=0.0.4", TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", OPENMETRICS),
        ('application/openmetrics-text; version="1.0.0"', OPENMETRICS),
        ('application/openmetrics-text; version="1\\.0.0"', OPENMETRICS),
        ("APPLICATION/OpenMetrics-Text;Version=1.0.0", OPENMETRICS),
        # equal q: the more exact, then the first
        ("text/plain, application/openmetrics-text", TEXT),
        ("application/openmetrics-text, text/plain", OPENMETRICS),
        ("*/*, application/openmetrics-text", OPENMETRICS),
        ("text/plain, application/openmetrics-text;version=1.0.0", OPENMETRICS),
        # q values
        ("application/openmetrics-text;version=1.0.0;q=0.2,text/plain;version=0.0.4;q=0.5", TEXT),
        ("text/plain;q=0.5, */*;q=0.6", OPENMETRICS),  # the range for text is its own, not the wildcard
        ("text/plain;q=0, */*", OPENMETRICS),
        ("application/openmetrics-text;q=0.999,text/plain;q=1.000", TEXT),
        ("application/openmetrics-text;version=1.0.0;q=0", TEXT),
        ("application/openmetrics-text;q=0, application/*", TEXT),
        # no q: the item is passed over
        ("application/openmetrics-text;q=nan", TEXT),
        ("application/openmetrics-text;q=2", TEXT),
        ("application/openmetrics-text;q=-1", TEXT),
        ("application/openmetrics-text;q=0.0001", TEXT),
        ("application/openmetrics-text;q=", TEXT),
        ("application/openmetrics-text;q=1e0", TEXT),
        # unknown versions
        ("application/openmetrics-text;version=9.9.9", TEXT),
        ("application/openmetrics-text;version=0.0.1", TEXT),
        ("application/openmetrics-text;version=1.x", TEXT),
        ("application/openmetrics-text;version=", TEXT),
        ("text/plain;version=1.0.0;q=0.9, application/openmetrics-text;version=1.0.0;q=0.8", OPENMETRICS),
        # nothing we have, and garbage
        ("application/json", TEXT),
        ("text/plain;q=0", TEXT),
        ('application/json;a="x,application/openmetrics-text,y"', TEXT),
        ('application/json;a="unended, application/openmetrics-text', TEXT),
        (";;;q=,,=,\x00", TEXT),
        (";", TEXT),
        ("; ;,application/openmetrics-text", OPENMETRICS),
        ("," * 10_000 + "application/openmetrics-text", OPENMETRICS),
        ("a/b," * 32 + "application/openmetrics-text", TEXT),  # beyond the bound
        ("a/b," * 31 + "application/openmetrics-text", OPENMETRICS),
        ('"' * 16_001, TEXT),
        ("\\" * 16_000 + '"', TEXT),
        # not offered
        (PROTO, TEXT),
        (PROMETHEUS_2_42_NATIVE, OPENMETRICS),
        (PROMETHEUS_2_42, OPENMETRICS),
        (PROMETHEUS_3, OPENMETRICS),
    ],
)
def test_format_follows_the_accept_header(accept: str, chosen: Format) -> None:
    assert choose_format(accept) is chosen


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (PROTO, PROTOBUF),
        (PROMETHEUS_2_42_NATIVE, PROTOBUF),
        (PROMETHEUS_3_NATIVE, PROTOBUF),
        (PROMETHEUS_2_42, OPENMETRICS),
        (PROTO + ";q=0.4, text/plain;q=0.5", TEXT),
        (PROTO.replace("delimited", "text"), TEXT),
        (PROTO.replace("MetricFamily", "Other"), TEXT),
        ("application/vnd.google.protobuf", TEXT),  # which message, and how many, is not said
        ("application/vnd.google.protobuf;encoding=delimited", TEXT),
        ("*/*", TEXT),
        ("application/*", OPENMETRICS),
        ("application/*, application/openmetrics-text;q=0", TEXT),
        ("*/*, application/openmetrics-text;q=0, text/plain;q=0", TEXT),
    ],
)
def test_protobuf_is_for_those_who_name_it_whole(accept: str, chosen: Format) -> None:
    assert choose_format(accept, (TEXT, OPENMETRICS, PROTOBUF)) is chosen


@pytest.mark.parametrize(
    ("accept_encoding", "accepted"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("br, deflate", False),
        ("*", True),
        ("*;q=0", False),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("gzip;q=0.001", True),
        ("gzip;q=0.5, identity", False),
        ("gzip, identity", True),
        ("gzip;q=0.5, identity;q=0.4", True),
        ("identity", False),
        ("gzip;q=high", False),
        ("gzip2", False),
        (",;q=,\x00", False),
        (";,gzip", True),
    ],
)
def test_gzip_follows_the_accept_encoding_header(accept_encoding: str, accepted: bool) -> None:
    assert accepts_gzip(accept_encoding) is accepted
