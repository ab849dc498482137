IP_ADDRESS_BYTES_MAX: int
USER_AGENT_BYTES_MAX: int
DATA_BYTES_MAX: int

def encode_created(
    time_ms: int,
    session_id: bytes,
    token_hash: bytes,
    user_id: str,
    device_id: str,
    ip_address: str,
    user_agent: str,
    created_by: str,
    expires_at_ms: int,
    idle_seconds: int,
    data: bytes,
    evicts: tuple[bytes, ...],
) -> bytes: ...
def split_texts(
    payload: bytes, lengths_at: int, texts_at: int
) -> tuple[str, str, str, str, str, bytes, int] | None: ...
