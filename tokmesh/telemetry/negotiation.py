"""What a scraper asked for: the exposition format by its Accept header, gzip by its Accept-Encoding (RFC 9110 §12.5).

Invariants: both headers come from outside and are never an error. An unknown type, version or coding, and a q that is
none, are passed over; who accepts none of our formats still gets text 0.0.4, as Prometheus expects. The most specific
range decides a format's q; among formats of equal q the one named more exactly wins, then the one named first, then text.

prometheus-client's own choice is not used: it ignores q, echoes the scraper's version, and raises TypeError for a version
such as "1.x".
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

ITEMS_MAX: Final = 32  # of a header; those beyond are passed over

# Items and parameters end at a comma or semicolon that is not inside a quoted string.
_ITEM: Final = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+', re.DOTALL)
_PARAMETER: Final = re.compile(r'(?:[^;"]|"(?:[^"\\]|\\.)*"?)+', re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_Q: Final = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


class Format(NamedTuple):
    """An exposition format. parameters: those that tell it from another version; needs_all: a range without them is not
    this format (else it is, in any version it knows).
    """

    content_type: str
    media_type: str
    parameters: tuple[tuple[str, str], ...]
    needs_all: bool = False


TEXT: Final = Format("text/plain; version=0.0.4; charset=utf-8", "text/plain", (("version", "0.0.4"),))
OPENMETRICS: Final = Format(
    "application/openmetrics-text; version=1.0.0; charset=utf-8", "application/openmetrics-text", (("version", "1.0.0"),)
)
PROTOBUF: Final = Format(
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
    "application/vnd.google.protobuf",
    (("proto", "io.prometheus.client.metricfamily"), ("encoding", "delimited")),
    needs_all=True,
)


class _Item(NamedTuple):
    """One item of a header: its name in lower case, its parameters (names in lower case, values unquoted), its q."""

    name: str
    parameters: dict[str, str]
    q: float


def _items(header: str) -> Iterator[_Item]:
    for number, item in enumerate(_ITEM.finditer(header)):
        if number == ITEMS_MAX:
            return
        name, *rest = [part.strip() for part in _PARAMETER.findall(item[0])] or [""]
        parameters = {}
        for part in rest:
            key, _, value = part.partition("=")
            if len(value) >= 2 and value[0] == value[-1] == '"':
                value = _ESCAPED.sub(r"\1", value[1:-1])
            parameters[key.strip().lower()] = value.strip().lower()
        q = parameters.pop("q", "1")
        if _Q.fullmatch(q):
            yield _Item(name.lower(), parameters, float(q))


def _specificity(item: _Item, offer: Format) -> int:
    """How exactly the range names the offer: 0 not at all, 1 `*/*`, 2 `type/*`, 3 the type, and 1 more a parameter."""
    if item.name == offer.media_type:
        known = [(name, item.parameters[name] == value) for name, value in offer.parameters if name in item.parameters]
        if not all(equal for _, equal in known) or (offer.needs_all and len(known) < len(offer.parameters)):
            return 0
        return 3 + len(known)
    if offer.needs_all:
        return 0  # only for those who ask for it
    return {f"{offer.media_type.partition('/')[0]}/*": 2, "*/*": 1}.get(item.name, 0)


def choose_format(accept: str, offers: Sequence[Format] = (TEXT, OPENMETRICS)) -> Format:
    """The offer that the Accept header ("" if there is none) prefers; text 0.0.4 if it accepts none."""
    items = list(_items(accept))
    best, best_rank = TEXT, (0.0, 0, 0)
    for offer in offers:
        matches = [(_specificity(item, offer), -position, item.q) for position, item in enumerate(items)]
        specificity, position, q = max(matches, default=(0, 0, 0.0))
        if specificity and q and (q, specificity, position) > best_rank:
            best, best_rank = offer, (q, specificity, position)
    return best


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether gzip is accepted, and no less than no coding at all (which is always accepted, if it is not named)."""
    qs = {item.name: item.q for item in _items(accept_encoding)}
    gzip_q = qs.get("gzip", qs.get("x-gzip", qs.get("*", 0.0)))
    return gzip_q > 0 and gzip_q >= qs.get("identity", 0.0)
