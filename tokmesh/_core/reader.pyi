class MessageReader:
    in_body: bool
    body_received: int
    def __init__(self, head_bytes_max: int, header_count_max: int, body_bytes_max: int) -> None: ...
