"""Kinds of configuration values: how each is written, parsed, checked and shown again.

A kind turns what a source gives (text from the command line and the environment; text, numbers, booleans and lists from
YAML) into one typed value, or raises BadValue with the code and the rule. Parsing touches neither disk nor network.

Units. Durations need one: ms, s, m, h, d ("100ms", "2h", "1.5s"); a bare number is refused because nobody can tell
seconds from milliseconds. Sizes are binary, as Redis and nginx mean them: 1 KB = 1024 bytes, 1 MB = 1024 KB, 1 GB =
1024 MB, 1 TB = 1024 GB (KiB, MiB, GiB, TiB are the same); a bare number is bytes. Rates are bytes a second ("1KB/s") or,
decimal as network engineers mean them, bits a second ("20Mbps" = 20,000,000 bit/s = 2,500,000 bytes/s).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

LIST_ITEMS_MAX: Final = 1024

_DURATION_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SIZE_BYTES: Final = {
    "": 1,
    "B": 1,
    "K": 2**10,
    "KB": 2**10,
    "KIB": 2**10,
    "M": 2**20,
    "MB": 2**20,
    "MIB": 2**20,
    "G": 2**30,
    "GB": 2**30,
    "GIB": 2**30,
    "T": 2**40,
    "TB": 2**40,
    "TIB": 2**40,
}
_BIT_RATE: Final = {"BPS": 1, "KBPS": 10**3, "MBPS": 10**6, "GBPS": 10**9}
_NUMBER: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)")
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?")
_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})

Network = IPv4Network | IPv6Network


class BadValue(Exception):
    """A value that breaks its rule. code: TM-CFG-1001 (type) or TM-CFG-1002 (range). part: of it, without secrets; None: all."""

    def __init__(self, code: str, part: str | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.part = part


WRONG_TYPE: Final = "TM-CFG-1001"
OUT_OF_RANGE: Final = "TM-CFG-1002"


class Address(NamedTuple):
    """Where a listener binds. `host` without brackets; port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can connect; a host name other than `localhost` counts as reachable from outside."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value.

    rule: the sentence after "must be", shown in errors and in the reference.
    suffix: the unit at the end of the field's name in Settings ("_ms", "_bytes"; empty where there is none).
    parse: (value as given, folder that relative paths are relative to) → typed value; raises BadValue.
    show: typed value → the text that would parse to it.
    """

    rule: str
    suffix: str
    parse: Callable[[object, Path], Any]
    show: Callable[[Any], str] = str


def _text(value: object) -> str:
    """The value as stripped text; numbers may come unquoted from YAML, booleans and containers may not."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadValue(WRONG_TYPE)
    return str(value).strip()


def _bounded(value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise BadValue(OUT_OF_RANGE)
    return value


def _scaled(text: str, units: dict[str, int], *, fold: bool) -> int:
    """A decimal number times its unit; the exact product must be whole."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise BadValue(WRONG_TYPE)
    unit = match[2].upper() if fold else match[2]
    if unit not in units:
        raise BadValue(WRONG_TYPE)
    product = Fraction(match[1]) * units[unit]
    if product.denominator != 1:
        raise BadValue(OUT_OF_RANGE)
    return int(product)


def show_duration(milliseconds: int) -> str:
    """The shortest exact text of a duration: 7200000 → "2h"."""
    for unit in ("d", "h", "m", "s"):
        if milliseconds and milliseconds % _DURATION_MS[unit] == 0:
            return f"{milliseconds // _DURATION_MS[unit]}{unit}"
    return f"{milliseconds}ms"


def show_size(size_bytes: int) -> str:
    """The shortest exact text of a size: 1048576 → "1MB"."""
    for unit in ("TB", "GB", "MB", "KB"):
        if size_bytes and size_bytes % _SIZE_BYTES[unit] == 0:
            return f"{size_bytes // _SIZE_BYTES[unit]}{unit}"
    return f"{size_bytes}B"


def duration(low: str, high: str) -> Kind:
    """A span of time between two given texts, in milliseconds."""
    low_ms, high_ms = (_scaled(bound, _DURATION_MS, fold=False) for bound in (low, high))

    def parse(value: object, _base: Path) -> int:
        text = _text(value)
        return _bounded(0 if text == "0" else _scaled(text, _DURATION_MS, fold=False), low_ms, high_ms)

    rule = f"a duration from {low} to {high}, a number and a unit of ms, s, m, h or d"
    return Kind(rule, "_ms", parse, show_duration)


def size(low: str, high: str) -> Kind:
    """An amount of bytes between two given texts."""
    low_bytes, high_bytes = (_scaled(bound, _SIZE_BYTES, fold=True) for bound in (low, high))

    def parse(value: object, _base: Path) -> int:
        return _bounded(_scaled(_text(value), _SIZE_BYTES, fold=True), low_bytes, high_bytes)

    return Kind(f"a size from {low} to {high}, a number and a unit of B, KB, MB, GB or TB", "_bytes", parse, show_size)


def rate(low: str, high: str) -> Kind:
    """Bytes a second between two sizes; written as a size a second or in bits a second."""
    low_bytes, high_bytes = (_scaled(bound, _SIZE_BYTES, fold=True) for bound in (low, high))

    def parse(value: object, _base: Path) -> int:
        text = _text(value)
        if text.lower().endswith("bps"):
            return _bounded(_scaled(text, _BIT_RATE, fold=True) // 8, low_bytes, high_bytes)
        if re.search(r"[KMG]b", text):  # a megabit or a megabyte? eight times apart
            raise BadValue(WRONG_TYPE)
        return _bounded(_scaled(text.removesuffix("/s"), _SIZE_BYTES, fold=True), low_bytes, high_bytes)

    rule = f"a rate from {low}/s to {high}/s, such as 1KB/s or 20Mbps"
    return Kind(rule, "_bytes_per_s", parse, lambda value: f"{show_size(value)}/s")


def integer(low: int, high: int, suffix: str = "") -> Kind:
    """A whole number in a closed interval."""

    def parse(value: object, _base: Path) -> int:
        text = _text(value)
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
            raise BadValue(WRONG_TYPE)
        return _bounded(int(text), low, high)

    return Kind(f"a whole number from {low} to {high}", suffix, parse)


def fraction() -> Kind:
    """A share between 0 and 1."""

    def parse(value: object, _base: Path) -> float:
        text = _text(value)
        if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,12})?", text):
            raise BadValue(WRONG_TYPE)
        if float(text) > 1:
            raise BadValue(OUT_OF_RANGE)
        return float(text)

    return Kind("a number from 0 to 1", "", parse)


def boolean() -> Kind:
    """true or false, in the spellings YAML knows."""

    def parse(value: object, _base: Path) -> bool:
        if isinstance(value, bool):
            return value
        text = _text(value).lower()
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        raise BadValue(WRONG_TYPE)

    return Kind("true or false", "", parse, lambda value: "true" if value else "false")


def choice(*options: str, aliases: dict[str, str] | None = None) -> Kind:
    """One of a closed set of words, any case."""

    def parse(value: object, _base: Path) -> str:
        text = _text(value).lower()
        word = (aliases or {}).get(text, text)
        if word not in options:
            raise BadValue(OUT_OF_RANGE)
        return word

    return Kind(f"one of {', '.join(options)}", "", parse)


def number_or(word: str, low: int, high: int) -> Kind:
    """A whole number, or one word in its place; the word stays a string."""
    number = integer(low, high)

    def parse(value: object, base: Path) -> int | str:
        if isinstance(value, str) and value.strip().lower() == word:
            return word
        return int(number.parse(value, base))

    return Kind(f"{number.rule}, or {word}", "", parse)


def pattern(expression: str, rule: str) -> Kind:
    """Text that matches a regular expression in full."""
    compiled = re.compile(expression)

    def parse(value: object, _base: Path) -> str:
        text = _text(value)
        if compiled.fullmatch(text) is None:
            raise BadValue(OUT_OF_RANGE)
        return text

    return Kind(rule, "", parse)


def address() -> Kind:
    """host:port; an IPv6 host in brackets."""

    def parse(value: object, _base: Path) -> Address:
        host, colon, port = _text(value).rpartition(":")
        if not colon or not re.fullmatch(r"[0-9]{1,6}", port):
            raise BadValue(WRONG_TYPE)
        if host.startswith("[") and host.endswith("]"):
            host = _literal_ipv6(host[1:-1])
        elif not _HOST_NAME.fullmatch(host):
            raise BadValue(WRONG_TYPE)
        elif re.fullmatch(r"[0-9.]+", host):
            _literal(host)
        return Address(host, _bounded(int(port), 0, 65535))

    return Kind("host:port, such as 127.0.0.1:5080, 0.0.0.0:5080 or [::1]:5080", "", parse)


def _literal(host: str) -> str:
    try:
        return str(ip_address(host))
    except ValueError:
        raise BadValue(WRONG_TYPE) from None


def _literal_ipv6(host: str) -> str:
    if ":" not in host:
        raise BadValue(WRONG_TYPE)
    return _literal(host)


def _items(value: object) -> list[str]:
    """A YAML list, or text with commas between the items; `[]` and empty text are the empty list."""
    if isinstance(value, list | tuple):
        items = [_text(item) for item in value]
    else:
        text = _text(value)
        if text.startswith("[") and text.endswith("]"):
            text = text[1:-1]
        items = [item.strip() for item in text.split(",")] if text.strip() else []
    if not all(items):
        raise BadValue(WRONG_TYPE)
    if len(items) > LIST_ITEMS_MAX:
        raise BadValue(OUT_OF_RANGE)
    return items


def networks() -> Kind:
    """IP addresses and CIDR blocks."""

    def parse(value: object, _base: Path) -> tuple[Network, ...]:
        try:
            return tuple(ip_network(item) for item in _items(value))
        except ValueError:
            raise BadValue(WRONG_TYPE) from None

    rule = f"a list of up to {LIST_ITEMS_MAX} addresses or CIDR blocks without host bits, such as [10.0.0.0/8, ::1]"
    return Kind(rule, "", parse, lambda value: f"[{', '.join(map(str, value))}]")


def optional_url() -> Kind:
    """An http or https URL without credentials in it (they would be shown); empty text means none."""

    def parse(value: object, _base: Path) -> str:
        given = _text(value)
        if not given:
            return ""
        if len(given) > 2048 or re.fullmatch(r"[\x21-\x7e]+", given) is None:
            raise BadValue(OUT_OF_RANGE)
        try:
            parts = urlsplit(given)
            port = parts.port
        except ValueError:
            raise BadValue(WRONG_TYPE) from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadValue(WRONG_TYPE)
        if port == 0 or "@" in parts.netloc or parts.query or parts.fragment:
            raise BadValue(OUT_OF_RANGE)
        return given

    return Kind("an http or https URL without user, query or fragment", "", parse)


def command() -> Kind:
    """A command's words, the first of them an absolute path: what it runs depends on no PATH. An empty list means none."""

    def parse(value: object, _base: Path) -> tuple[str, ...]:
        words = tuple(_items(value))
        if any("\0" in word for word in words) or (words and not words[0].startswith("/")):
            raise BadValue(OUT_OF_RANGE)
        return words

    rule = "a list of words, the first an absolute path, such as [/usr/bin/vault, kv, get, -field=keys, secret/tokmesh]"
    return Kind(rule, "", parse, lambda value: f"[{', '.join(value)}]")


def texts(rule: str) -> Kind:
    """A list of texts."""
    return Kind(rule, "", lambda value, _base: tuple(_items(value)), lambda value: f"[{', '.join(value)}]")


def _path(value: object, base: Path) -> Path:
    given = _text(value)
    if "\0" in given or len(given) > 4096:
        raise BadValue(OUT_OF_RANGE)
    return Path(base, Path(given).expanduser()) if given.startswith("~/") else Path(base, given)


def directory() -> Kind:
    """A folder; made when it is missing."""

    def parse(value: object, base: Path) -> Path:
        if not _text(value):
            raise BadValue(OUT_OF_RANGE)
        return _path(value, base)

    return Kind("the path of a directory", "", parse)


def optional_file() -> Kind:
    """A file that must exist when it is named; empty text means none."""

    def parse(value: object, base: Path) -> Path | None:
        return _path(value, base) if _text(value) else None

    return Kind("the path of a file that exists", "", parse, lambda value: "" if value is None else str(value))
