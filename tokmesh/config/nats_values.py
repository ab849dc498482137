"""Kinds of values of `cluster.nats`: what NATS's own client would take wrongly, or would try for ever, is refused before.

An entry that is refused is named without its user info, also where it is too broken to tell where that ends.
"""

import re
from pathlib import Path
from typing import Final

from tokmesh.config.values import OUT_OF_RANGE, WRONG_TYPE, BadValue, Kind, address, integer, texts

_SCHEMES: Final = ("nats", "tls")
_USER: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+;=%-]+(:[A-Za-z0-9._~!$&'()*+;=%-]*)?")
_CUT_SHORT: Final = re.compile(r"(?<=://)([^\[\]:/]*):(?![0-9]{0,6}(/|\?|#|$)).*", re.DOTALL)  # a password that had a comma in it
_ENTRY_CHARS_MAX: Final = 80


def nats_servers() -> Kind:
    """URLs of NATS servers, all of one scheme."""
    urls, endpoint = texts(""), address()

    def check(entry: str, base: Path) -> str:
        scheme, mark, rest = entry.partition("://")
        if not mark or scheme not in _SCHEMES:
            raise BadValue(WRONG_TYPE)
        user, at, place = rest.rpartition("@")
        if at and _USER.fullmatch(user) is None:
            raise BadValue(WRONG_TYPE)
        has_port = ":" in place and not place.endswith("]")
        if endpoint.parse(place if has_port else f"{place}:4222", base).port == 0:
            raise BadValue(OUT_OF_RANGE)
        return scheme

    def parse(value: object, base: Path) -> tuple[str, ...]:
        try:
            entries: tuple[str, ...] = urls.parse(value, base)
        except BadValue as error:
            raise BadValue(error.code, "a list with an empty entry" if isinstance(value, str) else None) from None
        scheme = ""
        for entry in entries:
            try:
                own = check(entry, base)
            except BadValue as error:
                raise BadValue(error.code, f"the list with {_named(entry)}") from None
            if scheme and own != scheme:
                raise BadValue(OUT_OF_RANGE, f"the list with {_named(entry)} beside {scheme}://")
            scheme = own
        return entries

    rule = "a list of NATS URLs, nats://[user:password@]host[:port], or tls:// for all of them, with a port from 1 to 65535"
    return Kind(rule, "", parse, urls.show)


def replicas() -> Kind:
    """An odd number of servers: an even one survives no more failures than the number below it."""
    number = integer(1, 5)

    def parse(value: object, base: Path) -> int:
        count: int = number.parse(value, base)
        if count % 2 == 0:
            raise BadValue(OUT_OF_RANGE)
        return count

    return Kind("1, 3 or 5", "", parse)


def _named(entry: str) -> str:
    before, at, after = entry.rpartition("@")
    if at:
        scheme, mark, _ = before.partition("://")
        text = f"{scheme}{mark}[redacted]@{after}" if mark else f"[redacted]@{after}"
    else:
        text = _CUT_SHORT.sub(r"\1:[redacted]", entry)
    return repr(text if len(text) <= _ENTRY_CHARS_MAX else text[:_ENTRY_CHARS_MAX] + "…")
