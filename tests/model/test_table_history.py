"""One long random history with many sessions: indexes grow and shrink, entries, blocks and strings are used again."""

import random

import pytest

from tests.model.table_pair import TablePair

OPERATIONS = 200_000
IDS = 6_000


def data_of(source: random.Random) -> bytes:
    return b'{"k":"%s"}' % (b"x" * source.choice([0, 5, 80, source.randrange(4000)]))


def step(pair: TablePair, source: random.Random) -> None:
    # Pairs of id and token mostly match, so that insertions succeed; sometimes they do not.
    number = source.randrange(IDS)
    token = number + IDS * source.randrange(3) if source.random() < 0.95 else source.randrange(IDS)
    address = source.choice(["10.0.0.1", f"10.0.{number % 256}.{token % 256}"])
    match source.randrange(20):
        case 0 | 1 | 2 | 3 | 4:
            pair.insert(
                number, token, f"user{number % 1500}", source.choice(["", f"device{number % 300}"]), address,
                f"agent {source.randrange(50)}", source.choice([500, 5_000, 60_000, 7_200_000]),
                source.choice([0, 0, 0, 3, 900]), data_of(source),
            )  # fmt: skip
        case 5:
            pair.renew(number, source.choice([0, 10_000, 3_600_000]))
        case 6:
            pair.update(number, data_of(source))
        case 7:
            pair.rotate(number, token, source.choice([0, 2_000, 60_000]))
        case 8:
            pair.revoke(number)
        case 9 | 10:
            pair.touch(number, source.randrange(2_000), source.choice([None, address]), source.choice([None, f"a{number}"]))
        case 11:
            if source.random() < 0.2:
                pair.pass_time(source.choice([1, 700, 1_000, 4_000, 90_000]), source.choice([3, 1_000_000]))
        case 12:
            pair.check_lists(f"user{number % 1500}", f"device{number % 300}") if source.random() < 0.02 else None
        case 13:
            pair.check_session(number)
        case _:
            pair.validate(token, source.random() < 0.3)


@pytest.mark.parametrize("seed", [1])
def test_a_long_history_equals_the_model(seed: int) -> None:
    source = random.Random(seed)
    pair = TablePair()
    for count in range(OPERATIONS):
        step(pair, source)
        if count % 20_000 == 0:
            pair.drain(100)
            pair.check_all(1000)
    pair.drain()
    for number in range(IDS):
        pair.check_session(number)
    for token in range(3 * IDS):
        pair.check_token(token)
    pair.check_all(1000)
    pair.pass_time(7_200_000 + 30_000 + 60_000 + 1_000)
    pair.pass_time(3_600_000 * 24)
    pair.check_all()
    stats = pair.table.stats()
    assert stats["entries_used"] == stats["interned_strings"] == 0
