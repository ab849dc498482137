from enum import IntEnum

from tokmesh._core.views import Views

class Outcome(IntEnum):
    DONE = 0
    INSERTED = 1
    ID_EXISTS = 2
    TOKEN_EXISTS = 3
    FULL = 4
    MISSING = 5
    REVOKED_ALREADY = 6
    ALREADY = 7

class Begins(Views): ...
