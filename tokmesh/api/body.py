"""JSON request bodies, strictly: one compiled specification a route.

A body is one JSON object (RFC 8259, UTF-8, no byte order mark). Faults of form are TM-SYS-4000 with details.reason:

    not_json        not JSON, not UTF-8, or text outside Unicode (a lone surrogate)
    not_an_object   JSON, but an array, string, number, true, false or null
    unknown_field   a field the route does not know (details.field where it is a plain name)
    too_deep        more than 8 levels of nesting, the body itself being the first; beyond 1024 levels whatever else is wrong
    duplicate_key   a key twice in one object, at any depth

then a field of the wrong type is TM-ARG-1001 and a required one that is absent TM-ARG-1002 (details.field both times).
`null` is a type of its own that no field has. A body of no bytes stands for `{}` where no field is required. Ranges and
lengths are rules of the domain, not of the form, and are not checked here.

Accepted bodies are checked in one pass over the parsed fields (_core/fields.pyx); only refused or doubtful ones are read a second
time. What makes the single pass enough:

  - Nesting: every accepted field is a scalar, a list of strings or an object of strings, so an accepted body has two
    levels.
  - Duplicates: the parser keeps the last of two equal keys without a word. Each pair of the text has one colon outside
    strings, so colons of the text = pairs of the text + colons inside strings. If the colons of the text equal the
    pairs parsed (or those and the colons of the parsed strings), nothing was dropped. An escaped colon (\\u003a) would
    count in the parsed string but not in the text; a text with `\\u003` in it is therefore doubtful.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import orjson

from tokmesh._core.fields import Fit, is_of_kind, judge
from tokmesh.api.answer import nameable
from tokmesh.errors import ApiError

DEPTH_MAX: Final = 8

_FIT: Final = int(Fit.FIT)
_MISFIT: Final = int(Fit.MISFIT)
_CONTAINERS: Final = (dict, list)
_KIND_NAMES: Final[dict[type, str]] = {
    str: "string",
    int: "integer",
    bool: "boolean",
    list: "array of strings",
    dict: "object of strings",
}


class BodySpec:
    """The fields one route takes. Types: `str`, `int`, `bool`, `list` (of strings), `dict` (string to string)."""

    __slots__ = ("_kinds", "_required")

    def __init__(
        self, *, required: Mapping[str, type] | None = None, optional: Mapping[str, type] | None = None
    ) -> None:
        self._required = tuple(required or ())
        self._kinds = {**(required or {}), **(optional or {})}
        assert len(self._kinds) == len(self._required) + len(optional or {}), "a field is required or optional"
        assert all(kind in _KIND_NAMES for kind in self._kinds.values())

    def parse(self, body: bytes) -> dict[str, Any]:
        """The fields of a body, each present one of its declared type.

        Raises TM-SYS-4000, TM-ARG-1001, TM-ARG-1002 as stated at the top of this file. O(len(body)).
        """
        try:
            fields = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            if not body and not self._required:
                return {}
            if "limit" in error.msg:  # the parser's own, of 1024 levels, behind which it does not look
                raise ApiError("TM-SYS-4000", {"reason": "too_deep", "limit": DEPTH_MAX}) from None
            raise ApiError("TM-SYS-4000", {"reason": "not_json"}) from None
        if type(fields) is not dict:
            raise ApiError("TM-SYS-4000", {"reason": "not_an_object"})
        fit = judge(fields, self._kinds, body)
        if fit != _FIT:
            if fit == _MISFIT:
                self._refuse(body, fields)
            _refuse_duplicates(body)
        for name in self._required:
            if name not in fields:
                raise ApiError("TM-ARG-1002", {"field": name})
        return fields

    def _refuse(self, body: bytes, fields: dict[str, Any]) -> NoReturn:
        """Raises for the first fault, in the order of this file's head; there is an unknown field or a wrong type."""
        for name in fields:
            if name not in self._kinds:
                raise ApiError("TM-SYS-4000", {"reason": "unknown_field", **nameable(name)})
        if _is_too_deep(fields):
            raise ApiError("TM-SYS-4000", {"reason": "too_deep", "limit": DEPTH_MAX})
        _refuse_duplicates(body)
        for name, value in fields.items():
            if not is_of_kind(value, self._kinds[name]):
                raise ApiError("TM-ARG-1001", {"field": name, "expected": _KIND_NAMES[self._kinds[name]]})
        raise AssertionError("a refused body has a fault")


def _is_too_deep(fields: dict[str, Any]) -> bool:
    """Whether containers nest more than DEPTH_MAX levels. Level by level, each node once."""
    level: list[Any] = [fields]
    for _ in range(DEPTH_MAX):
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if type(child) in _CONTAINERS
        ]
        if not level:
            return False
    return True


def _refuse_duplicates(body: bytes) -> None:
    """Raises TM-SYS-4000 if an object of this body, which is known to be JSON, has a key twice."""
    try:
        json.loads(body.decode(), object_pairs_hook=_unique_pairs, parse_int=float)
    except RecursionError:
        # The parse that kept the last of equal keys was shallow enough to be judged: the depth was in a dropped value.
        raise ApiError("TM-SYS-4000", {"reason": "duplicate_key"}) from None


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ApiError("TM-SYS-4000", {"reason": "duplicate_key"})
    return fields
