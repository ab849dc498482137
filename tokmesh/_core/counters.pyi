from enum import IntEnum

NAMES: tuple[str, ...]

class Counter(IntEnum):
    VALIDATE_VALID = 0
    VALIDATE_INVALID = 1
    VALIDATE_ERROR = 2
    SESSION_CREATE = 3
    SESSION_RENEW = 4
    SESSION_UPDATE = 5
    SESSION_ROTATE = 6
    SESSION_REVOKE = 7
    SESSION_EVICT = 8
    AUTH_OK = 9
    AUTH_MISSING = 10
    AUTH_MALFORMED = 11
    AUTH_INVALID = 12
    AUTH_DISABLED = 13
    AUTH_EXPIRED = 14
    AUTH_ROLE = 15
    AUTH_ADDRESS = 16
    AUTH_RATE_LIMITED = 17
    AUTH_OVERLOADED = 18
    CONNECTION_OPENED = 19
    CONNECTION_CLOSED = 20
    CONNECTION_REFUSED = 21
    REJECT_PARSE = 22
    REJECT_HEAD_SIZE = 23
    REJECT_HEADER_COUNT = 24
    REJECT_HOST = 25
    REJECT_TARGET = 26
    REJECT_VERSION = 27
    REJECT_TRANSFER_ENCODING = 28
    REJECT_EXPECT = 29
    REJECT_UPGRADE = 30
    REJECT_BODY_SIZE = 31
    REJECT_HEAD_TIMEOUT = 32
    REJECT_BODY_RATE = 33
    REJECT_WRITE_BUFFER = 34
    REJECT_BUFFERED_BYTES = 35
    HEAD_PARSED = 36
    HEAD_REPEATED = 37
    RECEIVED_BYTES = 38
    SENT_BYTES = 39
    COUNTER_COUNT = 40

class CounterBlock:
    size: int
    def __init__(self, size: int = ...) -> None: ...
    def increment(self, index: int, amount: int = 1) -> None: ...
    def read(self, index: int) -> int: ...
    def read_all(self) -> list[int]: ...
