"""The usual way to build the same service: Starlette on uvicorn (uvloop, httptools), sessions in Redis.

Does what `POST /tokens/validate` does and no more: checks the API key in constant time, parses the body, hashes the
token, GETs the session from Redis, answers in the same envelope; with orjson and hiredis, as a careful team would.

Usage: python starlette_app.py PORT REDIS_PORT API_KEY
"""

import hashlib
import hmac
import secrets
import sys
import time
from collections.abc import Awaitable, Callable

import orjson
import redis.asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def answer(status: int, code: str, data: object) -> Response:
    request_id = "req-" + secrets.token_hex(8)
    body = orjson.dumps(
        {
            "code": code,
            "message": "Success" if status == 200 else "Refused",
            "request_id": request_id,
            "timestamp": time.time_ns() // 1_000_000,
            "data": data,
        }
    )
    return Response(body, status, {"X-Request-ID": request_id}, "application/json")


def validate_handler(sessions: "redis.asyncio.Redis", api_key: str) -> Callable[[Request], Awaitable[Response]]:
    key_id, _, secret = api_key.partition(":")
    secret_hashes = {key_id: hashlib.sha256(secret.encode()).digest()}

    async def validate(request: Request) -> Response:
        scheme, _, credential = request.headers.get("authorization", "").partition(" ")
        presented_id, _, presented_secret = credential.partition(":")
        expected = secret_hashes.get(presented_id)
        presented = hashlib.sha256(presented_secret.encode()).digest()
        if scheme != "Bearer" or expected is None or not hmac.compare_digest(expected, presented):
            return answer(401, "TM-AUTH-4011", None)
        token = orjson.loads(await request.body())["token"]
        session = await sessions.get(b"token:" + hashlib.sha256(token.encode()).digest())
        if session is None:
            return answer(200, "OK", {"valid": False, "error": {"code": "TM-TOKN-4010", "message": "token unknown"}})
        return answer(200, "OK", {"valid": True, "session": orjson.Fragment(session)})

    return validate


def application(redis_port: int, api_key: str) -> Starlette:
    sessions = redis.asyncio.Redis(host="127.0.0.1", port=redis_port)
    return Starlette(routes=[Route("/tokens/validate", validate_handler(sessions, api_key), methods=["POST"])])


if __name__ == "__main__":
    uvicorn.run(
        application(int(sys.argv[2]), sys.argv[3]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
