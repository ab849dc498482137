"""A `.creds` file is what NATS servers in operator mode take: the JWT and the signature that a real one checks."""

import asyncio
import base64
import json
import os
from pathlib import Path
from typing import Any

import nkeys
import pytest

from tests.support.nats import HeldPorts, NatsServer
from tokmesh.cluster.link import Link
from tokmesh.config.keys import NatsSettings


def made(prefix: int) -> Any:
    """A key pair of that kind."""
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), prefix))


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def vouched(issuer: Any, subject: Any, kind: str, **more: object) -> str:
    """A JWT of NATS."""
    claims = {
        "jti": kind, "iat": 1, "iss": issuer.public_key.decode(), "sub": subject.public_key.decode(), "name": kind,
        "nats": {"type": kind, "version": 2, **more},
    }  # fmt: skip
    head = encoded(b'{"typ":"JWT","alg":"ed25519-nkey"}') + "." + encoded(json.dumps(claims).encode())
    return f"{head}.{encoded(issuer.sign(head.encode()))}"


@pytest.mark.parametrize("issued_by_the_account", [True, False])
def test_a_creds_file_is_what_a_server_of_an_operator_takes(tmp_path: Path, issued_by_the_account: bool) -> None:
    kinds = (nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER)
    operator, account, stranger, user = (made(kind) for kind in kinds)
    limits = {"subs": -1, "data": -1, "payload": -1, "conn": -1, "imports": -1, "exports": -1, "wildcards": True, "leaf": -1}
    held = HeldPorts()
    config = tmp_path / "nats.conf"
    config.write_text(
        f'listen: "127.0.0.1:{held.ports.client}"\nhttp: "127.0.0.1:{held.ports.monitor}"\n'
        f"operator: {vouched(operator, operator, 'operator')}\nresolver: MEMORY\n"
        f"resolver_preload: {{ {account.public_key.decode()}: {vouched(operator, account, 'account', limits=limits)} }}\n"
    )
    jwt = vouched(account if issued_by_the_account else stranger, user, "user", subs=-1, data=-1, payload=-1, pub={}, sub={})
    file = tmp_path / "user.creds"
    file.write_text(
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )

    async def connect(url: str) -> tuple[bool, str | None]:
        link = Link(NatsSettings(servers=(url,), credentials_file=file), "test")
        trying = asyncio.create_task(link.connect())
        while not link.connected and "uthorization" not in (link.reason or ""):
            await asyncio.sleep(0.02)
        if not link.connected:
            trying.cancel()
        await asyncio.gather(trying, return_exceptions=True)
        await link.close()
        return link.state != "connecting", link.reason

    with NatsServer("operated", tmp_path, config, held.ports) as server:
        made_it, reason = asyncio.run(asyncio.wait_for(connect(server.url), 20))
        assert made_it is issued_by_the_account, reason
    held.release()
