"""A session as plain Python values: what listing, comparing and snapshots read. The wire path never builds one."""

from typing import NamedTuple


class SessionView(NamedTuple):
    """In the order of docs/api.md, "The session". `id` is the 16-byte ULID, `data` compact JSON text, times are Unix ms."""

    id: bytes
    user_id: str
    device_id: str
    ip_address: str
    user_agent: str
    last_access_ip: str
    last_access_ua: str
    created_by: str
    created_at: int
    expires_at: int
    last_active: int
    data: bytes
    version: int
    idle_seconds: int
