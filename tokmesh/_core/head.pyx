"""The head of one request: what the request line and header fields say, checked once.

A Head is immutable in all that came off the wire, so that a connection may keep it for the next request with the same bytes.
Two places only are filled later: the grant its credential was verified to, and the key that was found to have the role and the
address for it.
Framing and syntax were decided by httptools before; here are the rules it leaves to the server (RFC 9110, RFC 9112).
"""

import re

from tokmesh._core.counters import Counter


class Rejected(Exception):
    """A request that is answered with `status` and `code` before routing, and whose connection then closes.

    counter: the Counter that counts the reason.
    """

    def __init__(self, status: int, code: str, counter: int) -> None:
        super().__init__(status, code)
        self.status = status
        self.code = code
        self.counter = counter


_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_NO_VERSION = re.compile(rb"[A-Z]+ [\x21-\x7e]+")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(r"https?://([^/?#]*)(.*)", re.IGNORECASE)
# An id is echoed and logged, so what looks like a token, an API secret or a hash is none.
_REQUEST_ID = re.compile(r"(?!(?i:.*tm(?:tk|as)_)|[0-9A-Fa-f]{64})[A-Za-z0-9._-]{1,64}")
# What httptools can parse and the server answers (mostly with 405); any other token is "not implemented", RFC 9110 §9.1.
_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH"))
_SINGLE = frozenset(("host", "content-length", "transfer-encoding", "authorization", "x-api-key", "x-request-id", "expect"))


def check_request_line(bytes line not None) -> tuple[str, str, bool]:
    """(method, target, is HTTP/1.0) of a request line without its CRLF. Raises Rejected."""
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        if _NO_VERSION.fullmatch(line):  # HTTP/0.9
            raise Rejected(505, "TM-SYS-4000", Counter.REJECT_VERSION)
        raise Rejected(400, "TM-SYS-4000", Counter.REJECT_PARSE)
    method, target, major, minor = found.groups()
    if major != b"1" or minor not in b"01":
        raise Rejected(505, "TM-SYS-4000", Counter.REJECT_VERSION)
    if method == b"CONNECT":
        raise Rejected(400, "TM-SYS-4000", Counter.REJECT_UPGRADE)
    if method not in _METHODS:
        raise Rejected(501, "TM-SYS-4000", Counter.REJECT_PARSE)
    return method.decode("ascii"), target.decode("ascii"), minor == b"0"


cdef class Head:
    """method, target, http10: of check_request_line. fields: (name, value) byte pairs in order, as httptools gave them.

    Raises Rejected for everything that is answered and closed on.
    """

    def __init__(self, str method, str target, bint http10, list fields, bint keep_alive):
        self.method = method
        self.http10 = http10
        self.keep_alive = keep_alive
        self.headers = {}
        for raw_name, raw_value in fields:
            name = raw_name.decode("ascii").lower()
            value = raw_value.decode("latin-1").strip(" \t")
            if name in self.headers:
                if name in _SINGLE:
                    self._reject_repeated(name, value)
                    continue
                value = f"{self.headers[name]}, {value}"
            self.headers[name] = value
        self._frame()
        self._locate(target)
        self._identify()
        self.route_number = -1
        self.params = ()

    def _reject_repeated(self, name: str, value: str) -> None:
        if name == "host":
            raise Rejected(400, "TM-SYS-4000", Counter.REJECT_HOST)
        if name in ("authorization", "x-api-key"):
            self.credential_conflict = self.credential_conflict or value != self.headers[name]
        elif name == "transfer-encoding":
            raise Rejected(501, "TM-SYS-4000", Counter.REJECT_TRANSFER_ENCODING)
        else:
            raise Rejected(400, "TM-SYS-4000", Counter.REJECT_PARSE)

    def _frame(self) -> None:
        coding = self.headers.get("transfer-encoding")
        length = self.headers.get("content-length")
        if coding is not None:
            if self.http10 or length is not None:
                raise Rejected(400, "TM-SYS-4000", Counter.REJECT_TRANSFER_ENCODING)
            if coding.lower() != "chunked":
                raise Rejected(501, "TM-SYS-4000", Counter.REJECT_TRANSFER_ENCODING)
            self.chunked = True
            self.body_size = -1
        elif length is not None:
            if not (length.isascii() and length.isdigit()):
                raise Rejected(400, "TM-SYS-4000", Counter.REJECT_PARSE)
            # 19 digits are far beyond any body limit and still fit; llhttp has refused what overflows 64 bits
            self.body_size = int(length) if len(length) <= 18 else 10**18
        expect = self.headers.get("expect")
        if expect is not None:
            if expect.lower() != "100-continue":
                raise Rejected(417, "TM-SYS-4000", Counter.REJECT_EXPECT)
            self.expects_continue = not self.http10
        if "upgrade" in self.headers:
            raise Rejected(400, "TM-SYS-4000", Counter.REJECT_UPGRADE)

    def _locate(self, target: str) -> None:
        host = self.headers.get("host")
        if host is None:
            if not self.http10:
                raise Rejected(400, "TM-SYS-4000", Counter.REJECT_HOST)
        elif _HOST.fullmatch(host) is None:
            raise Rejected(400, "TM-SYS-4000", Counter.REJECT_HOST)
        if "#" in target:
            raise Rejected(400, "TM-SYS-4000", Counter.REJECT_TARGET)
        if not target.startswith("/"):
            absolute = _ABSOLUTE.fullmatch(target)
            if absolute is None:  # authority form and "*" have no use here
                raise Rejected(400, "TM-SYS-4000", Counter.REJECT_TARGET)
            authority, target = absolute.groups()
            if _HOST.fullmatch(authority) is None or (host is not None and authority.lower() != host.lower()):
                raise Rejected(400, "TM-SYS-4000", Counter.REJECT_HOST)
            if not target.startswith("/"):
                target = "/" + target
        self.path, _, self.query = target.partition("?")

    def _identify(self) -> None:
        supplied = self.headers.get("x-request-id")
        if supplied is not None and _REQUEST_ID.fullmatch(supplied):
            self.request_id = supplied
        bearer = None
        authorization = self.headers.get("authorization")
        if authorization is not None:
            scheme, _, value = authorization.partition(" ")
            bearer = value.strip(" ") if scheme.lower() == "bearer" else ""
        api_key = self.headers.get("x-api-key")
        if bearer is not None and api_key is not None and bearer != api_key:
            self.credential_conflict = True
        presented = bearer if bearer is not None else api_key
        if presented is not None:
            self.credential = presented.encode("latin-1")

    def resolve(self, router, method_index: int, validate_number: int) -> None:
        """Finds the route; once, before anyone else sees the head."""
        self.method_index = method_index
        try:
            self.route_number, self.params, self.allow = router.match(self.method, self.path)
        except ValueError:
            self.bad_path = True
        template = router.routes[self.route_number].template if self.route_number >= 0 else router.template_of(self.path)
        self.template_index = len(router.templates) if template is None else router.templates.index(template)
        self.is_validate = self.route_number >= 0 and self.route_number == validate_number
