"""Rules of a session's fields (docs/api.md, "The session"): check, normalise, or refuse with TM-SESS-4001 and the broken rule.

user_id and device_id carry no control characters (U+0000–U+001F, U+007F–U+009F), no text carries lone surrogates: neither can
be told apart on a terminal or put into a URL or a log line. Lengths are in characters.
"""

import re
from ipaddress import ip_address as parse_ip_address
from typing import Any, Final, NoReturn

import orjson

from tokmesh._core.fields import broken_rule_of_data, is_ipv4
from tokmesh.errors import ApiError

USER_ID_CHARS_MAX: Final = 128
DEVICE_ID_CHARS_MAX: Final = 128
USER_AGENT_CHARS_MAX: Final = 512
DATA_BYTES_MAX: Final = 4096
TTL_SECONDS_MIN: Final = 1
GRACE_SECONDS_MAX: Final = 60

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def refuse(field: str, rule: str) -> NoReturn:
    """Raises TM-SESS-4001 for `field`; `rule` is fixed text, never input."""
    raise ApiError("TM-SESS-4001", {"field": field, "rule": rule})


def _check_characters(field: str, text: str) -> None:
    if _CONTROL.search(text) is not None:
        refuse(field, "no control characters")
    _check_unicode(field, text)


def _check_unicode(field: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        refuse(field, "no lone surrogates")


def check_user_id(user_id: str) -> None:
    """1 to 128 characters."""
    if not 1 <= len(user_id) <= USER_ID_CHARS_MAX:
        refuse("user_id", "1 to 128 characters")
    # Printable text has neither control characters nor surrogates; the reverse does not hold.
    if not user_id.isprintable():
        _check_characters("user_id", user_id)


def check_device_id(device_id: str) -> None:
    """At most 128 characters."""
    if len(device_id) > DEVICE_ID_CHARS_MAX:
        refuse("device_id", "at most 128 characters")
    if not device_id.isprintable():
        _check_characters("device_id", device_id)


def normal_ip_address(ip_address: str) -> str:
    """An IPv4 or IPv6 address in its one normal form; "" stays "". No zone (`%eth0`): it means nothing on another host."""
    if not ip_address or is_ipv4(ip_address):
        return ip_address
    try:
        address = parse_ip_address(ip_address)
    except ValueError:
        refuse("ip_address", "an IPv4 or IPv6 address, or empty")
    if "%" in ip_address:
        refuse("ip_address", "no zone")
    return str(address)


def cut_user_agent(user_agent: str) -> str:
    """The first 512 characters."""
    if len(user_agent) > USER_AGENT_CHARS_MAX:
        user_agent = user_agent[:USER_AGENT_CHARS_MAX]
    if not user_agent.isprintable():
        _check_unicode("user_agent", user_agent)
    return user_agent


def encode_data(data: dict[str, str]) -> bytes:
    """Compact JSON text of `data`: keys 1 to 64 and values up to 1024 characters, at most 4096 bytes in all."""
    broken = broken_rule_of_data(data)
    if broken is not None:
        refuse("data", broken)
    try:
        encoded = orjson.dumps(data)
    except orjson.JSONEncodeError:
        refuse("data", "no lone surrogates")
    if len(encoded) > DATA_BYTES_MAX:
        refuse("data", "at most 4096 bytes as JSON")
    return encoded


def _is_whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def ttl_ms(ttl_seconds: int, max_ms: int) -> int:
    """Seconds → ms; a whole number from 1 to `max_ms`."""
    if not _is_whole(ttl_seconds, TTL_SECONDS_MIN, max_ms // 1000):
        refuse("ttl_seconds", f"a whole number from 1 to {max_ms // 1000}")
    return ttl_seconds * 1000


def check_idle_seconds(idle_seconds: int, max_ms: int) -> None:
    """A whole number from 1 to `max_ms`."""
    if not _is_whole(idle_seconds, 1, max_ms // 1000):
        refuse("idle_seconds", f"a whole number from 1 to {max_ms // 1000}")


def check_grace_seconds(grace_seconds: int) -> None:
    """A whole number from 0 to 60."""
    if not _is_whole(grace_seconds, 0, GRACE_SECONDS_MAX):
        refuse("grace_seconds", "a whole number from 0 to 60")
