"""Hostile requests over real sockets against a real server process, each split at every offset of its bytes.

The in-memory test next door decides every split exactly; here the same corpus crosses the kernel, uvloop and a whole
server: each case gets its stated answer, none changes state, shows an exception's text, or takes the server down.
"""

import selectors
import socket
import time
from collections.abc import Iterator

import pytest

from tests.http.hostile_corpus import LARGE_CASES, SMALL_CASES, Case
from tests.support.answers import split_answers
from tests.support.server import TokMeshProcess

CASE_TIMEOUT_S = 30.0
LEAKS = (b"Traceback", b"Error:", b"Exception", b"File \"", b"httptools", b"llhttp")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokMeshProcess]:
    with TokMeshProcess(tmp_path_factory.mktemp("hostile")) as process:
        yield process


class Conversation:
    """One connection that sends two pieces and collects what comes back, driven by a selector beside many others."""

    def __init__(self, port: int, case: Case, offset: int) -> None:
        self.case = case
        self.offset = offset
        self.pieces = [case.sent[:offset], case.sent[offset:]]
        self.received = b""
        self.closed = False
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)

    def send_piece(self) -> None:
        """Sends the next piece; a server that has closed already is heard of when reading."""
        try:
            self.socket.sendall(self.pieces.pop(0))
        except OSError:
            self.pieces.clear()

    def read(self) -> None:
        """Takes what has come."""
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        self.received += data
        self.closed = not data

    def finished(self) -> bool:
        """Whether all that the case must bring has come."""
        return self.closed or (not self.case.closes and len(self.answers()) >= len(self.case.answers))

    def answers(self) -> list[tuple[int, str]]:
        """(status, code) of the complete answers so far; nothing while the last one is incomplete."""
        try:
            return [(reply.status, reply.envelope["code"]) for reply in split_answers(self.received)]
        except (AssertionError, ValueError):
            return []


def converse_at_every_offset(port: int, case: Case, offsets: list[int]) -> list[Conversation]:
    """All splits of a case at once: first pieces everywhere, then, when the server has had time to read them, second ones."""
    conversations = [Conversation(port, case, offset) for offset in offsets]
    deadline = time.monotonic() + CASE_TIMEOUT_S
    with selectors.DefaultSelector() as selector:
        for conversation in conversations:
            conversation.send_piece()
            selector.register(conversation.socket, selectors.EVENT_READ, conversation)
        time.sleep(0.02)
        for conversation in conversations:
            conversation.send_piece()
        waiting = set(conversations)
        while waiting and time.monotonic() < deadline:
            for key, _ in selector.select(0.1):
                key.data.read()
                if key.data.closed:
                    selector.unregister(key.fileobj)
                if key.data.finished():
                    waiting.discard(key.data)
    for conversation in conversations:
        conversation.socket.close()
    return conversations


@pytest.mark.parametrize("case", SMALL_CASES, ids=lambda case: case.name)
def test_every_split_over_a_socket(server: TokMeshProcess, case: Case) -> None:
    case = case.with_key(server.admin_key.encode())
    for conversation in converse_at_every_offset(server.port, case, list(range(1, len(case.sent)))):
        split = f"split at {conversation.offset}"
        assert tuple(conversation.answers()) == case.answers, split
        assert conversation.closed == case.closes, split
        assert not any(leak in conversation.received for leak in LEAKS), split


@pytest.mark.parametrize("case", LARGE_CASES, ids=lambda case: case.name)
def test_large_requests_over_a_socket(server: TokMeshProcess, case: Case) -> None:
    case = case.with_key(server.admin_key.encode())
    (conversation,) = converse_at_every_offset(server.port, case, [len(case.sent) // 2])
    # Also where the server refused while the peer was still sending: it reads on a little so that the answer arrives.
    assert tuple(conversation.answers()) == case.answers
    assert conversation.closed == case.closes


def test_server_is_unharmed(server: TokMeshProcess) -> None:
    status, answer = server.request("GET", "/sessions", key=server.admin_key)
    assert (status, answer["data"]["total_items"]) == (200, 0)
    assert server.request("GET", "/ready", key=None)[0] == 200
    levels = {line["level"] for line in server.log_lines()}
    assert not levels & {"ERROR"}, server.output
