"""Query parameters, strictly: one specification a route.

Every parameter is known to its route, given once and not empty; TM-ARG-1001 with details.field otherwise (the wire path
has already refused one given twice: TM-ARG-1003). Integers are 1 to 18 ASCII digits, no sign.
"""

from collections.abc import Mapping
from typing import Any, Final

from tokmesh.api.answer import Request, nameable
from tokmesh.errors import ApiError

_DIGITS_MAX: Final = 18


class QuerySpec:
    """The query parameters one route takes, by name and type: `str` or `int`."""

    __slots__ = ("_kinds",)

    def __init__(self, kinds: Mapping[str, type]) -> None:
        assert all(kind in (str, int) for kind in kinds.values())
        self._kinds = dict(kinds)

    def parse(self, request: Request) -> dict[str, Any]:
        """The parameters given, converted. Raises TM-ARG-1001; TM-ARG-1003 comes from `query_args` itself."""
        values: dict[str, Any] = {}
        for name, text in request.query_args().items():
            kind = self._kinds.get(name)
            if kind is None:
                raise ApiError("TM-ARG-1001", {"reason": "unknown_parameter", **nameable(name)})
            if not text:
                raise ApiError("TM-ARG-1001", {"field": name, "reason": "empty"})
            values[name] = parse_integer(name, text) if kind is int else text
        return values


NO_QUERY: Final = QuerySpec({})


def parse_integer(name: str, text: str) -> int:
    """An unsigned decimal integer. Raises TM-ARG-1001 naming the parameter."""
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX):
        raise ApiError("TM-ARG-1001", {"field": name, "reason": "not_an_integer"})
    return int(text)


def split_names(name: str, text: str) -> list[str]:
    """Names separated by commas ("id,user_id"). Raises TM-ARG-1001 for an empty name."""
    names = text.split(",")
    if "" in names:
        raise ApiError("TM-ARG-1001", {"field": name, "reason": "empty"})
    return names
