"""Requests that a hostile or broken peer sends, and the one answer each must get.

A case is bytes on a fresh connection. `answers` lists the (status, code) of every answer in order; `closes` says whether
the server ends the connection after the last one without the peer having to. Nothing here may change state. KEY stands for
a valid credential and is filled in by whoever runs a case (`with_key`). Without it a POST is refused on its head, and nothing that
is wrong with its body is told.
"""

from typing import Final, NamedTuple

OK: Final = "OK"
BAD: Final = (400, "TM-SYS-4000")
VERSION: Final = (505, "TM-SYS-4000")
CODING: Final = (501, "TM-SYS-4000")
HEAD_SIZE: Final = (431, "TM-SYS-4000")
BODY_SIZE: Final = (413, "TM-SYS-4130")
NO_ROUTE: Final = (404, "TM-SYS-4040")
NO_KEY: Final = (401, "TM-AUTH-4010")
WRONG_KEY: Final = (401, "TM-AUTH-4011")
HEALTHY: Final = (200, OK)
KEY: Final = b"tmak-KEY"


class Case(NamedTuple):
    """One hostile conversation; `name` says what it tries."""

    name: str
    sent: bytes
    answers: tuple[tuple[int, str], ...]
    closes: bool = True

    def with_key(self, credential: bytes) -> "Case":
        """The same with a credential of the server that is asked."""
        return self._replace(sent=self.sent.replace(KEY, credential))


CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
CHUNK_32_KB: Final = b"8000\r\n" + b"x" * 32768 + b"\r\n"
HEALTH: Final = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"


def _get(fields: bytes, target: bytes = b"/health", version: bytes = b"HTTP/1.1") -> bytes:
    return b"GET " + target + b" " + version + b"\r\n" + fields + b"\r\n"


def _post(fields: bytes, body: bytes = b"", target: bytes = b"/tokens/validate") -> bytes:
    return b"POST " + target + b" HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n" + body


def _admitted(fields: bytes, body: bytes) -> bytes:
    """A request whose key is good, so that its body is read."""
    return _post(b"Authorization: Bearer " + KEY + b"\r\n" + fields, body)


def _smuggle(fields: bytes, body: bytes) -> bytes:
    """A body whose end two servers might place differently, with a request hidden behind it."""
    return _post(fields, body) + HEALTH


# Who is asked: Host and target.
HOST_CASES: Final = (
    Case("no host", _get(b""), (BAD,)),
    Case("two hosts", _get(b"Host: a\r\nHost: b\r\n"), (BAD,)),
    Case("the same host twice", _get(b"Host: a\r\nHost: a\r\n"), (BAD,)),
    Case("empty host", _get(b"Host:\r\n"), (BAD,)),
    Case("host with a space", _get(b"Host: a b\r\n"), (BAD,)),
    Case("host with a path", _get(b"Host: a/b\r\n"), (BAD,)),
    Case("host with user information", _get(b"Host: u@a\r\n"), (BAD,)),
    Case("host with two ports", _get(b"Host: a:1:2\r\n"), (BAD,)),
    Case("host with a port of letters", _get(b"Host: a:http\r\n"), (BAD,)),
    Case("host list", _get(b"Host: a, b\r\n"), (BAD,)),
    Case("fragment in the target", _get(b"Host: a\r\n", b"/health#x"), (BAD,)),
    Case("absolute target of another host", _get(b"Host: a\r\n", b"http://b/health"), (BAD,)),
    Case("absolute target with user information", _get(b"Host: a\r\n", b"http://u@a/health"), (BAD,)),
    Case("absolute target without authority", _get(b"Host: a\r\n", b"http:///health"), (BAD,)),
    Case("absolute target of another scheme", _get(b"Host: a\r\n", b"ftp://a/health"), (BAD,)),
    Case("absolute target that agrees", _get(b"Host: A\r\n", b"http://a/health"), (HEALTHY,), closes=False),
    Case("asterisk target", _get(b"Host: a\r\n", b"*"), (BAD,)),
    Case("authority target", _get(b"Host: a\r\n", b"a:443"), (BAD,)),
    Case("target without a slash", _get(b"Host: a\r\n", b"health"), (BAD,)),
    Case("dot segments are not resolved", _get(b"Host: a\r\n", b"/x/../health"), (NO_ROUTE,), closes=False),
    Case("double slash is not folded", _get(b"Host: a\r\n", b"//health"), (NO_ROUTE,), closes=False),
    Case("encoded path is not folded", _get(b"Host: a\r\n", b"/%68ealth"), (NO_ROUTE,), closes=False),
    Case("trailing slash is another path", _get(b"Host: a\r\n", b"/health/"), (NO_ROUTE,), closes=False),
    Case("control character in the target", _get(b"Host: a\r\n", b"/hea\x01lth"), (BAD,)),
    Case("byte above ASCII in the target", _get(b"Host: a\r\n", b"/h\xc3\xa9alth"), (BAD,)),
    Case("tab in the target", _get(b"Host: a\r\n", b"/a\tb"), (BAD,)),
)

# What is spoken: request line, version, method.
LINE_CASES: Final = (
    Case("HTTP/0.9", b"GET /health\r\n\r\n", (VERSION,)),
    Case("HTTP/2.0", _get(b"Host: a\r\n", version=b"HTTP/2.0"), (VERSION,)),
    Case("HTTP/1.2", _get(b"Host: a\r\n", version=b"HTTP/1.2"), (VERSION,)),
    Case("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (VERSION,)),
    Case("lower-case protocol name", _get(b"Host: a\r\n", version=b"http/1.1"), (BAD,)),
    Case("version of two digits", _get(b"Host: a\r\n", version=b"HTTP/1.10"), (BAD,)),
    Case("two spaces before the target", b"GET  /health HTTP/1.1\r\nHost: a\r\n\r\n", (BAD,)),
    Case("two spaces before the version", b"GET /health  HTTP/1.1\r\nHost: a\r\n\r\n", (BAD,)),
    Case("space after the version", b"GET /health HTTP/1.1 \r\nHost: a\r\n\r\n", (BAD,)),
    Case("space before the method", b" GET /health HTTP/1.1\r\nHost: a\r\n\r\n", (BAD,)),
    Case("tab between the words", b"GET\t/health\tHTTP/1.1\r\nHost: a\r\n\r\n", (BAD,)),
    Case("bare line feeds", b"GET /health HTTP/1.1\nHost: a\n\n", (BAD,)),
    Case("bare line feed in a field", b"GET /health HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", (BAD,)),
    Case("bare carriage return in a field", b"GET /health HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n", (BAD,)),
    Case("unknown method", b"FETCH /health HTTP/1.1\r\nHost: a\r\n\r\n", (CODING,)),
    Case("lower-case method", b"get /health HTTP/1.1\r\nHost: a\r\n\r\n", (CODING,)),
    Case("method that is no token", b"G(T /health HTTP/1.1\r\nHost: a\r\n\r\n", (BAD,)),
    Case("CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", (BAD,)),
    Case("TLS client hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", (BAD,)),
    Case("line noise", b"\x00\xff\xfe\r\n\r\n", (BAD,)),
    Case("many empty lines first", b"\r\n" * 5 + HEALTH, (BAD,)),
    Case("one empty line first", b"\r\n" + HEALTH, (HEALTHY,), closes=False),
)

# How it is framed: fields, lengths, codings.
FRAME_CASES: Final = (
    Case("space before the colon", _get(b"Host: a\r\nX : y\r\n"), (BAD,)),
    Case("folded field", _get(b"Host: a\r\nX: y\r\n z\r\n"), (BAD,)),
    Case("field without a colon", _get(b"Host: a\r\nXy\r\n"), (BAD,)),
    Case("field without a name", _get(b"Host: a\r\n: y\r\n"), (BAD,)),
    Case("NUL in a field", _get(b"Host: a\r\nX: y\x00z\r\n"), (BAD,)),
    Case("field name above ASCII", _get(b"Host: a\r\nX\xc3\xa9: y\r\n"), (BAD,)),
    Case("length and chunked", _smuggle(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), (BAD,)),
    Case("chunked and length", _smuggle(b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", b"0\r\n\r\n"), (BAD,)),
    Case("two lengths", _smuggle(b"Content-Length: 0\r\nContent-Length: 4\r\n", b""), (BAD,)),
    Case("the same length twice", _smuggle(b"Content-Length: 0\r\nContent-Length: 0\r\n", b""), (BAD,)),
    Case("length list", _smuggle(b"Content-Length: 0, 0\r\n", b""), (BAD,)),
    Case("length with a plus", _smuggle(b"Content-Length: +0\r\n", b""), (BAD,)),
    Case("negative length", _smuggle(b"Content-Length: -1\r\n", b""), (BAD,)),
    Case("hexadecimal length", _smuggle(b"Content-Length: 0x0\r\n", b""), (BAD,)),
    Case("empty length", _smuggle(b"Content-Length:\r\n", b""), (BAD,)),
    Case("length beyond 64 bits", _post(b"Content-Length: 18446744073709551616\r\n"), (BAD,)),
    Case("length beyond the limit", _post(b"Content-Length: 1048577\r\n"), (BODY_SIZE,)),
    Case("gzip, chunked", _smuggle(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), (CODING,)),
    Case("chunked, chunked", _smuggle(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"), (BAD,)),
    Case("chunked twice", _smuggle(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), (BAD,)),
    Case("chunked, gzip", _smuggle(b"Transfer-Encoding: chunked, gzip\r\n", b"0\r\n\r\n"), (BAD,)),
    Case("identity", _smuggle(b"Transfer-Encoding: identity\r\n", b""), (BAD,)),
    Case("xchunked", _smuggle(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), (BAD,)),
    Case(
        "chunked in HTTP/1.0",
        b"POST /tokens/validate HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        (BAD,),
    ),
    Case("chunk size of letters", _admitted(CHUNKED, b"xyz\r\n"), (BAD,)),
    Case("chunk size with a sign", _admitted(CHUNKED, b"+1\r\na\r\n0\r\n\r\n"), (BAD,)),
    Case("chunk size with 0x", _admitted(CHUNKED, b"0x1\r\na\r\n0\r\n\r\n"), (BAD,)),
    Case("chunk size beyond 64 bits", _admitted(CHUNKED, b"fffffffffffffffff\r\n"), (BAD,)),
    Case("chunk longer than its size", _admitted(CHUNKED, b"1\r\nab\r\n0\r\n\r\n"), (BAD,)),
    Case("chunk line of a bare line feed", _admitted(CHUNKED, b"1\na\r\n0\r\n\r\n"), (BAD,)),
    Case("other expectation", _post(b"Expect: 200-ok\r\nContent-Length: 0\r\n"), ((417, "TM-SYS-4000"),)),
    Case("upgrade to h2c", _get(b"Host: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"), (BAD,)),
    Case("upgrade to websocket", _get(b"Host: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"), (BAD,)),
    Case("64 fields", _get(b"Host: a\r\n" + b"X: y\r\n" * 63), (HEALTHY,), closes=False),
    Case("65 fields", _get(b"Host: a\r\n" + b"X: y\r\n" * 64), (HEAD_SIZE,)),
)

# What is refused on its head: the body that comes all the same is dropped, or ends the connection.
UNREAD_CASES: Final = (
    Case("request behind a refused body", _post(b"Content-Length: 4\r\n", b"abcd") + HEALTH, (NO_KEY, HEALTHY), closes=False),
    Case("request behind the body of no route", _post(b"Content-Length: 4\r\n", b"abcd", b"/nope") + HEALTH, (NO_ROUTE, HEALTHY),
         closes=False),
    Case("request behind the chunks of a wrong key",
         _post(b"X-API-Key: a:b\r\nTransfer-Encoding: chunked\r\n", b"2\r\nab\r\n0\r\n\r\n") + HEALTH, (WRONG_KEY, HEALTHY),
         closes=False),
    Case("two refused bodies", _post(b"Content-Length: 2\r\n", b"ab") * 2 + HEALTH, (NO_KEY, NO_KEY, HEALTHY), closes=False),
    Case("refused body, then bad", _post(b"Content-Length: 2\r\n", b"ab") + b"GET  / HTTP/1.1\r\n\r\n", (NO_KEY, BAD)),
    Case("chunk size of letters without a key", _post(CHUNKED, b"xyz\r\n") + HEALTH, (NO_KEY,)),
    Case("chunk longer than its size without a key", _post(CHUNKED, b"1\r\nab\r\n0\r\n\r\n") + HEALTH,
         (NO_KEY,)),
    Case("expectation without a key", _post(b"Expect: 100-continue\r\nContent-Length: 4\r\n"), (NO_KEY,)),
    Case("expectation with a wrong key and the body at once",
         _post(b"X-API-Key: a:b\r\nExpect: 100-continue\r\nContent-Length: 4\r\n", b"abcd") + HEALTH, (WRONG_KEY,)),
    Case("expectation of no route", _post(b"Expect: 100-continue\r\nContent-Length: 4\r\n", b"", b"/nope"), (NO_ROUTE,)),
    Case("length that is not worth its reading, without a key", _post(b"Content-Length: 262145\r\n", b"abc"), (NO_KEY,)),
    Case("length beyond the limit, expected to go on", _post(b"Expect: 100-continue\r\nContent-Length: 1048577\r\n"), (BODY_SIZE,)),
    Case("length beyond the limit of no route", _post(b"Content-Length: 1048577\r\n", b"", b"/nope"), (BODY_SIZE,)),
    Case("GET with chunks and a request behind",
         _get(b"Host: a\r\nTransfer-Encoding: chunked\r\n") + b"2\r\nab\r\n0\r\n\r\n" + HEALTH, (BAD, HEALTHY), closes=False),
)

# What comes behind: bodies, pipelines, ends of connections.
PIPELINE_CASES: Final = (
    Case("chunked with a trailer", _post(CHUNKED, b"0\r\nHost: evil\r\n\r\n") + HEALTH,
         (NO_KEY, HEALTHY), closes=False),
    Case("chunk extension", _post(CHUNKED, b"2;a=b\r\n{}\r\n0\r\n\r\n") + HEALTH, (NO_KEY, HEALTHY),
         closes=False),
    Case("body that looks like a request", _post(b"Content-Length: 35\r\n", HEALTH + b"ab") + HEALTH, (NO_KEY, HEALTHY),
         closes=False),
    Case("chunk that looks like a request",
         _post(CHUNKED, b"21\r\n" + HEALTH + b"\r\n0\r\n\r\n") + HEALTH, (NO_KEY, HEALTHY),
         closes=False),
    Case("GET with a body and a request behind", _get(b"Host: a\r\nContent-Length: 3\r\n") + b"abc" + HEALTH,
         ((400, "TM-SYS-4000"), HEALTHY), closes=False),
    Case("three in a row", HEALTH * 3, (HEALTHY,) * 3, closes=False),
    Case("good, then bad", HEALTH + b"GET  / HTTP/1.1\r\n\r\n" + HEALTH, (HEALTHY, BAD)),
    Case("repeated head, then a head that differs in one byte", HEALTH + HEALTH + HEALTH.replace(b"health", b"healti"),
         (HEALTHY, HEALTHY, NO_ROUTE), closes=False),
    Case("repeated head, then a longer field", HEALTH * 2 + HEALTH[:-2] + b"Host: b\r\n\r\n", (HEALTHY, HEALTHY, BAD)),
    Case("close, then another request", _get(b"Host: a\r\nConnection: close\r\n") + HEALTH, (HEALTHY,)),
    Case("HTTP/1.0 without keep-alive", _get(b"", version=b"HTTP/1.0") + HEALTH, (HEALTHY,)),
    Case("HTTP/1.0 with keep-alive", _get(b"Connection: keep-alive\r\n", version=b"HTTP/1.0") + HEALTH, (HEALTHY, HEALTHY),
         closes=False),
    Case("two different keys", _post(b"Authorization: Bearer a:b\r\nX-API-Key: c:d\r\nContent-Length: 0\r\n"),
         ((400, "TM-ARG-1003"),), closes=False),
    Case("two authorizations", _post(b"Authorization: Bearer a:b\r\nAuthorization: Bearer c:d\r\nContent-Length: 0\r\n"),
         ((400, "TM-ARG-1003"),), closes=False),
    Case("empty bearer", _post(b"Authorization: Bearer\r\nContent-Length: 0\r\n"), ((401, "TM-AUTH-4011"),), closes=False),
    Case("other scheme", _post(b"Authorization: Basic YTpi\r\nContent-Length: 0\r\n"), ((401, "TM-AUTH-4011"),), closes=False),
    Case("request id with a line break is not kept", _get(b"Host: a\r\nX-Request-ID: a b\r\n"), (HEALTHY,), closes=False),
)

# Split at every offset these take minutes and show no more than those above; they are sent in 64 pieces.
LARGE_CASES: Final = (
    Case("head of 16 KB", _get(b"Host: a\r\nX: " + b"y" * (16384 - 49) + b"\r\n"), (HEALTHY,), closes=False),
    Case("head of 16 KB and a byte", _get(b"Host: a\r\nX: " + b"y" * (16384 - 36) + b"\r\n"), (HEAD_SIZE,)),
    Case("target without an end", b"GET /" + b"a" * 20000, (HEAD_SIZE,)),
    Case("field without an end", b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20000, (HEAD_SIZE,)),
    Case("trailers without an end", _admitted(CHUNKED, b"0\r\n" + b"X: yyyyyyyyyy\r\n" * 1500), (HEAD_SIZE,)),
    Case("trailers without an end or a key", _post(CHUNKED, b"0\r\n" + b"X: yyyyyyyyyy\r\n" * 1500), (NO_KEY,)),
    Case("chunks beyond the limit", _admitted(CHUNKED, CHUNK_32_KB * 33), (BODY_SIZE,)),
    Case("chunks beyond the limit without a key", _post(CHUNKED, CHUNK_32_KB * 33), (NO_KEY,)),
    Case("refused body of 256 KB", _post(b"Content-Length: 262144\r\n", b"x" * 262144) + HEALTH, (NO_KEY, HEALTHY), closes=False),
    Case("refused body of 256 KB and a byte", _post(b"Content-Length: 262145\r\n", b"x" * 262145) + HEALTH, (NO_KEY,)),
    Case("refused chunks of 256 KB", _post(CHUNKED, CHUNK_32_KB * 8 + b"0\r\n\r\n") + HEALTH, (NO_KEY, HEALTHY), closes=False),
    Case("refused chunks of 256 KB and a byte", _post(CHUNKED, CHUNK_32_KB * 8 + b"1\r\nx\r\n0\r\n\r\n") + HEALTH, (NO_KEY,)),
)

SMALL_CASES: Final = HOST_CASES + LINE_CASES + FRAME_CASES + UNREAD_CASES + PIPELINE_CASES
