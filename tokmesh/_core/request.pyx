"""One request as a handler sees it: head, body and caller, all checked before it gets here."""

from urllib.parse import unquote_to_bytes

from tokmesh.errors import ApiError


cdef class Request:
    """A complete request. Made by the connection only; a handler reads it.

    body: decoded bytes. api_key: of the verified credential, None on the local socket and for callers without one.
    trace: its spans (telemetry.tracing.tracer.RequestTrace) when it is sampled, else None.
    peer_ip: text form of the peer's address, "" on the local socket.
    """

    @property
    def body_file(self):
        """The file that has the body, of a route that spools; `body` is then empty. Removed with the request's end."""
        return None if self.spool is None else self.spool.path

    @property
    def method(self) -> str:
        """As sent: case matters."""
        return self.head.method

    @property
    def path(self) -> str:
        """Of the target, as sent, without the query."""
        return self.head.path

    @property
    def params(self) -> tuple[str, ...]:
        """Values of the template's placeholders, percent-decoded once."""
        return self.head.params

    def header(self, str name not None) -> str | None:
        """Value of the field `name` (any case); repeated fields joined with ", "."""
        return self.head.headers.get(name.lower())

    def query_args(self) -> dict[str, str]:
        """Query arguments, percent-decoded, "+" as a space; nothing between two "&" is none. Raises TM-ARG-1001 (bad encoding),
        TM-ARG-1003 (a repeated name)."""
        cdef dict args = {}
        if not self.head.query:
            return args
        for pair in self.head.query.split("&"):
            if not pair:
                continue
            raw_name, _, raw_value = pair.partition("=")
            try:
                name = unquote_to_bytes(raw_name.replace("+", " ")).decode("utf-8")
                value = unquote_to_bytes(raw_value.replace("+", " ")).decode("utf-8")
            except UnicodeDecodeError:
                raise ApiError("TM-ARG-1001", {"reason": "query_encoding"}) from None
            if name in args:
                raise ApiError("TM-ARG-1003", {"reason": "repeated_argument"})
            args[name] = value
        return args
