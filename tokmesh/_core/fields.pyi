from enum import IntEnum

class Fit(IntEnum):
    FIT = 0
    MISFIT = 1
    DOUBTFUL = 2

def judge(fields: dict[str, object], kinds: dict[str, type], body: bytes) -> int: ...
def is_of_kind(value: object, kind: type) -> bool: ...
def broken_rule_of_data(data: dict[str, str]) -> str | None: ...
