"""From method and path to a route: exact templates only, no normalisation, no trailing-slash magic.

A template is a path whose `{name}` segments each stand for exactly one non-empty segment. Literal segments win over
placeholders. What does not match literally is unmatched; a path is never rewritten, so a proxy in front cannot be made to
disagree about what was asked for. Placeholder values are percent-decoded once, as strict UTF-8.
"""

from urllib.parse import unquote_to_bytes

UNMATCHED = -1


class BadPath(ValueError):
    """A placeholder's value is not percent-encoded UTF-8."""


cdef class Router:
    """Routes by template.

    routes: objects with `.method` and `.template`; their position is the number `match` answers with.
    """

    def __init__(self, routes):
        self.routes = tuple(routes)
        self.templates = tuple(dict.fromkeys(route.template for route in self.routes))
        self._literal = {}
        self._patterns = {}
        for number, route in enumerate(self.routes):
            segments = tuple(route.template.split("/"))
            if any(segment.startswith("{") for segment in segments):
                by_method = self._patterns.setdefault(len(segments), {}).setdefault(
                    tuple(None if segment.startswith("{") else segment for segment in segments), {})
            else:
                by_method = self._literal.setdefault(route.template, {})
            if route.method in by_method:
                raise ValueError(f"{route.method} {route.template} is declared twice")
            by_method[route.method] = number

    cpdef tuple match(self, str method, str path):
        """(number, params, allow): the route's number and its decoded placeholder values.

        No template: number UNMATCHED, allow None. Template but not this method: UNMATCHED, allow is the `Allow` header's value.
        Raises BadPath.
        """
        by_method = self._literal.get(path)
        params = ()
        if by_method is None:
            by_method, params = self._match_pattern(path)
            if by_method is None:
                return UNMATCHED, (), None
        number = by_method.get(method)
        if number is None:
            return UNMATCHED, (), ", ".join(sorted(by_method))
        return number, params, None

    cdef tuple _match_pattern(self, str path):
        cdef list segments = path.split("/")
        for pattern, by_method in self._patterns.get(len(segments), {}).items():
            params = []
            for expected, segment in zip(pattern, segments):
                if expected is None and segment:
                    params.append(segment)
                elif expected != segment:
                    break
            else:
                return by_method, tuple([_decode(value) for value in params])
        return None, ()

    def template_of(self, str path) -> str | None:
        """The template that `path` falls under whatever the method, or None."""
        by_method = self._literal.get(path)
        if by_method is None:
            try:
                by_method, _ = self._match_pattern(path)
            except BadPath:
                return None
        return None if by_method is None else self.routes[next(iter(by_method.values()))].template


cdef str _decode(str segment):
    if "%" not in segment:
        return segment
    cdef Py_ssize_t at = segment.find("%")
    while at >= 0:
        digits = segment[at + 1:at + 3]
        if len(digits) != 2 or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
            raise BadPath()
        at = segment.find("%", at + 3)
    try:
        return unquote_to_bytes(segment).decode("utf-8")
    except UnicodeDecodeError:
        raise BadPath() from None
