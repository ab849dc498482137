"""A server with keys of every kind and one session, and how to see that nothing in it changed."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.http.client import Answer, exchange
from tests.support.server import TokMeshProcess

TOKEN = "tmtk_" + "A" * 43  # has a token's form, belongs to nobody
ROLES = ("metrics", "validator", "issuer", "admin")
UNKNOWN_SESSION = "tmss-01arz3ndektsv4rrffq69g5fav"
UNKNOWN_KEY = "tmak-01arz3ndektsv4rrffq69g5fav"


@dataclass
class World:
    """keys: credentials by role, and of "disabled" and "expired" admin keys; session: the answer to its creation."""

    process: TokMeshProcess
    keys: dict[str, str]
    session: dict[str, Any]

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = "admin",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request; `key` names a credential of `keys`, None presents none."""
        credential = None if key is None else self.keys[key]
        return exchange(self.process.port, method, path, body, key=credential, headers=headers)

    def state(self) -> dict[str, Any]:
        """What no refused request may change: every session, every key, the active gauge."""
        sessions = self.ask("GET", "/sessions?size=100&sort_order=asc").data
        keys = self.ask("GET", "/admin/v1/keys?size=100").data
        return {"sessions": sessions, "keys": keys}

    def active_sessions(self) -> float:
        """tokmesh_sessions_active_total of a scrape."""
        return self.metric("tokmesh_sessions_active_total")

    def metric(self, series: str) -> float:
        """The value of one series of a scrape, by its text before the value."""
        lines = self.ask("GET", "/metrics").body.decode().splitlines()
        return float(next(line.rsplit(" ", 1)[1] for line in lines if line.rsplit(" ", 1)[0] == series))

    def create_key(self, role: str, **fields: Any) -> tuple[str, str]:
        """A new key: its id and its credential."""
        created = self.ask("POST", "/admin/v1/keys", {"role": role, **fields}).data
        return created["key_id"], f"{created['key_id']}:{created['key_secret']}"


def start_world(directory: Path) -> World:
    """Starts a server and furnishes it; the caller stops `process`."""
    process = TokMeshProcess(directory)
    process.start()
    world = World(process, {"admin": process.admin_key}, {})
    # First, so that its time passes while the rest is made; long enough for a slow machine to make it before its end.
    expires_at = time.time_ns() // 1_000_000 + 2000
    world.keys["expired"] = world.create_key("admin", expires_at=expires_at)[1]
    for role in ROLES[:3]:
        world.keys[role] = world.create_key(role)[1]
    disabled_id, world.keys["disabled"] = world.create_key("admin")
    world.ask("POST", f"/admin/v1/keys/{disabled_id}/status", {"status": "disabled"}).data  # noqa: B018 - checks
    while time.time_ns() // 1_000_000 <= expires_at + 50:
        time.sleep(0.05)
    world.session = world.ask("POST", "/sessions", {"user_id": "settled", "data": {"k": "v"}}).data
    return world
