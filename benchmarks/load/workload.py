"""What every subject is asked: the same tokens, the same sessions, the same bodies.

A session's JSON is 400 bytes, exactly, for every session, so that all answers of one server have one size.
"""

import hashlib
import json
import random
import secrets
from dataclasses import dataclass
from pathlib import Path

SESSION_JSON_BYTES = 400
TOKEN_COUNT = 10_000
BATCH_TOKENS = 1000
CREATE_USERS = 40_000
USER_AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
SAMPLE_TIME_MS = 1_734_567_890_123


@dataclass(frozen=True)
class SessionInput:
    """The body of one `POST /sessions`, as TokMesh takes it."""

    user_id: str
    device_id: str
    ip_address: str
    user_agent: str
    data: dict[str, str]

    def body(self, token: str | None) -> str:
        fields: dict[str, object] = {
            "user_id": self.user_id,
            "device_id": self.device_id,
            "ip_address": self.ip_address,
            "user_agent": self.user_agent,
            "data": self.data,
        }
        if token is not None:
            fields["token"] = token
        return json.dumps(fields, separators=(",", ":"))

    def stored_json(self) -> bytes:
        """The session as a server would store and return it (times and ids are stand-ins of the right length)."""
        fields = {
            "id": "tmss-01jf8z6k4v3h9q2n7r5t1w0xyz",
            "user_id": self.user_id,
            "device_id": self.device_id,
            "ip_address": self.ip_address,
            "user_agent": self.user_agent,
            "last_access_ip": self.ip_address,
            "last_access_ua": self.user_agent,
            "created_by": "tmak-01jf8z6k4v3h9q2n7r5t1w0abc",
            "created_at": SAMPLE_TIME_MS,
            "expires_at": SAMPLE_TIME_MS + 7_200_000,
            "last_active": SAMPLE_TIME_MS,
            "data": self.data,
            "version": 1,
        }
        return json.dumps(fields, separators=(",", ":")).encode()


def session_input(number: int, user_number: int) -> SessionInput:
    """A session whose stored JSON has SESSION_JSON_BYTES bytes."""
    address = f"10.{number >> 16 & 63 | 64}.{100 + (number >> 8) % 100}.{100 + number % 100}"
    agent = USER_AGENT[:24]  # twice in the JSON; with the field names and ids it leaves room for `data`
    bare = SessionInput(f"u{user_number:09d}", f"device-{number % 10:d}", address, agent, {"r": ""})
    padding = SESSION_JSON_BYTES - len(bare.stored_json())
    assert padding >= 0
    return SessionInput(bare.user_id, bare.device_id, bare.ip_address, bare.user_agent, {"r": "x" * padding})


def new_token() -> str:
    return "tmtk_" + secrets.token_urlsafe(32)


def token_hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


@dataclass(frozen=True)
class Workload:
    """`tokens[i]` belongs to `sessions[i]`. The files hold one JSON body a line."""

    tokens: list[str]
    sessions: list[SessionInput]
    validate_bodies: Path
    batch_bodies: Path
    create_bodies: Path


def write_lines(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(line + "\n" for line in lines))
    return path


def make_workload(directory: Path, seed: int) -> Workload:
    """Tokens in random order, batches of BATCH_TOKENS, creates spread over CREATE_USERS so that no quota is met."""
    order = random.Random(seed)
    tokens = [new_token() for _ in range(TOKEN_COUNT)]
    sessions = [session_input(number, number) for number in range(TOKEN_COUNT)]
    shuffled = order.sample(tokens, TOKEN_COUNT)
    batches = [order.sample(tokens, BATCH_TOKENS) for _ in range(64)]
    creates = [session_input(number, TOKEN_COUNT + number) for number in range(CREATE_USERS)]
    return Workload(
        tokens=tokens,
        sessions=sessions,
        validate_bodies=write_lines(directory / "validate.bodies", [f'{{"token":"{token}"}}' for token in shuffled]),
        batch_bodies=write_lines(
            directory / "batch.bodies", [json.dumps({"tokens": batch}, separators=(",", ":")) for batch in batches]
        ),
        create_bodies=write_lines(directory / "create.bodies", [create.body(None) for create in creates]),
    )


def stand_in_answer(session_json: bytes) -> bytes:
    """An answer of TokMesh's shape and size, for runs that do not start TokMesh."""
    body = (
        b'{"code":"OK","message":"Success","request_id":"req-0123456789abcdef","timestamp":1734567890123,'
        b'"data":{"valid":true,"session":' + session_json + b"}}"
    )
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Request-ID: req-0123456789abcdef\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
