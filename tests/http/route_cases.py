"""Every route as a client sees it: who may, and a body that is good. What is tested over all routes goes over these."""

from typing import Any, NamedTuple

from tests.http.world import TOKEN, UNKNOWN_KEY, UNKNOWN_SESSION


class Case(NamedTuple):
    """A route as a client sees it. path: with `{session_id}` for the settled session; body: a good one, POST only.

    admits: the roles that may; None: anybody.
    """

    method: str
    template: str
    path: str
    admits: tuple[str, ...] | None
    body: dict[str, Any] | None = None
    required: tuple[str, ...] = ()
    takes_text: bool = False  # the body is no JSON of the API: the route judges any text
    answers: str = "OK"  # the code of the answer where all is right with the request

    @property
    def name(self) -> str:
        return f"{self.method} {self.template}"


VALIDATORS = ("validator", "issuer", "admin")
ISSUERS = ("issuer", "admin")
SESSION = "/sessions/{session_id}"
CASES = (
    Case("POST", "/tokens/validate", "/tokens/validate", VALIDATORS, {"token": TOKEN, "touch": False}, ("token",)),
    Case(
        "POST",
        "/tokens/validate/batch",
        "/tokens/validate/batch",
        VALIDATORS,
        {"tokens": [TOKEN], "touch": False},
        ("tokens",),
    ),
    Case("POST", "/tokens/rotate", "/tokens/rotate", ISSUERS, {"token": TOKEN, "grace_seconds": 1}, ("token",)),
    Case(
        "POST",
        "/sessions",
        "/sessions",
        ISSUERS,
        {
            "user_id": "u",
            "device_id": "d",
            "ip_address": "192.0.2.1",
            "user_agent": "a",
            "ttl_seconds": 60,
            "idle_seconds": 60,
            "data": {"k": "v"},
            "token": TOKEN,
        },
        ("user_id",),
    ),
    Case("GET", "/sessions", "/sessions?user_id=settled", ISSUERS),
    Case("GET", SESSION, SESSION, VALIDATORS),
    Case(
        "POST",
        SESSION + "/touch",
        SESSION + "/touch",
        ISSUERS,
        {"ip_address": "192.0.2.1", "user_agent": "a", "fields": ["id"]},
    ),
    Case("POST", SESSION + "/renew", SESSION + "/renew", ISSUERS, {"ttl_seconds": 60}, ("ttl_seconds",)),
    Case("POST", SESSION + "/update", SESSION + "/update", ISSUERS, {"data": {"k": "w"}, "if_version": 1}, ("data",)),
    Case("POST", SESSION + "/revoke", SESSION + "/revoke", ISSUERS, {"sync": True}),
    Case(
        "POST",
        "/users/{user_id}/sessions/revoke",
        "/users/settled/sessions/revoke",
        ISSUERS,
        {"except_session_id": UNKNOWN_SESSION, "sync": True},
    ),
    Case("GET", "/metrics", "/metrics", ("metrics", "admin")),
    Case("GET", "/health", "/health", None),
    Case("GET", "/ready", "/ready", None),
    Case("GET", "/console", "/console", ("admin",)),
    Case("GET", "/console/{file}", "/console/app.js", None),
    Case("GET", "/console/runbooks/{file}", "/console/runbooks/TokMeshSyncOff.md", None),
    Case("GET", "/admin/v1/status/summary", "/admin/v1/status/summary", ("admin",)),
    Case("GET", "/admin/v1/keys", "/admin/v1/keys", ("admin",)),
    Case(
        "POST",
        "/admin/v1/keys",
        "/admin/v1/keys",
        ("admin",),
        {"role": "issuer", "description": "d", "allowedlist": ["192.0.2.0/24"], "rate_limit": 5, "expires_at": 2**42},
        ("role",),
    ),
    Case(
        "POST",
        "/admin/v1/keys/{key_id}/status",
        f"/admin/v1/keys/{UNKNOWN_KEY}/status",
        ("admin",),
        {"status": "active"},
        ("status",),
    ),
    Case("GET", "/admin/v1/backups/snapshots", "/admin/v1/backups/snapshots", ("admin",)),
    Case("POST", "/admin/v1/backups/snapshots", "/admin/v1/backups/snapshots", ("admin",), {}),
    Case(
        "GET",
        "/admin/v1/backups/snapshots/{snapshot_id}/file",
        "/admin/v1/backups/snapshots/none/file",
        ("admin",),
        answers="TM-ADMIN-4041",
    ),
    Case("POST", "/admin/v1/backups/uploads", "/admin/v1/backups/uploads", ("admin",), {}, takes_text=True),
    Case("GET", "/admin/v1/backups/restores", "/admin/v1/backups/restores", ("admin",)),
    Case(
        "POST",
        "/admin/v1/backups/restores",
        "/admin/v1/backups/restores",
        ("admin",),
        {"snapshot_id": "snapshot-00000000000000000000"},
        ("snapshot_id",),
    ),
    Case("GET", "/admin/v1/backups/restores/{job_id}", "/admin/v1/backups/restores/x", ("admin",), answers="TM-ADMIN-4041"),
    Case("GET", "/admin/v1/cluster/nodes", "/admin/v1/cluster/nodes", ("admin",), answers="TM-ADMIN-4041"),
    Case(
        "POST",
        "/admin/v1/cluster/nodes/{node_id}/remove",
        "/admin/v1/cluster/nodes/tmnd-none/remove",
        ("admin",),
        {},
    ),
    Case("POST", "/admin/v1/cluster/rebalance", "/admin/v1/cluster/rebalance", ("admin",), {}),
    Case("POST", "/admin/v1/cluster/leave", "/admin/v1/cluster/leave", ("admin",), {}),
    Case("GET", "/admin/v1/log-level", "/admin/v1/log-level", ("admin",)),
    Case(
        "POST",
        "/admin/v1/log-level",
        "/admin/v1/log-level",
        ("admin",),
        {"level": "info", "revert_after_seconds": 60},
        ("level",),
    ),
    Case("GET", "/admin/v1/config", "/admin/v1/config", ("admin",)),
    Case("POST", "/admin/v1/config/validate", "/admin/v1/config/validate", ("admin",), {}, takes_text=True),
    Case("POST", "/admin/v1/config/reload", "/admin/v1/config/reload", ("admin",), {}),
    Case("GET", "/admin/v1/audit/logs", "/admin/v1/audit/logs", ("admin",)),
)
POSTS = [case for case in CASES if case.method == "POST" and not case.takes_text]
GETS = [case for case in CASES if case.method == "GET"]
GUARDED = [case for case in CASES if case.admits is not None]
