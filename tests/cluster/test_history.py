"""The judge of histories: lets pass what can have happened, and nothing else."""

import itertools
import random

import pytest

from tests.cluster.history import OPERATIONS_MAX, Operation, State, explain, shown

BEGUN = State(1, "a", "t1", 100)


def update(asked: int, answered: int | None, data: str, if_version: int | None, told: int | None) -> Operation:
    return Operation("update", asked, answered, data=data, if_version=if_version, told=told)


def rotate(asked: int, answered: int | None, token: str, told: str | None) -> Operation:
    return Operation("rotate", asked, answered, token=token, told=told)


def renew(asked: int, answered: int | None, told: int | None) -> Operation:
    return Operation("renew", asked, answered, told=told)


def revoke(asked: int, answered: int | None) -> Operation:
    return Operation("revoke", asked, answered)


def read(at: int, *fields: object) -> Operation:
    return Operation("read", at, at + 1, told=State(*fields))  # type: ignore[arg-type]


REVOKED = (1, "", None, None, True)

GOOD = {
    "nothing happened": [],
    "one after the other": [update(1, 2, "b", 1, 2), renew(3, 4, 200), rotate(5, 6, "t1", "t2"), read(8, 4, "b", "t2", 200)],
    "side by side, in the order of their versions": [
        update(1, 9, "b", None, 3), update(2, 8, "c", None, 2), read(10, 3, "b", "t1", 100),
    ],
    "a write without an answer that happened": [update(1, None, "b", 1, None), read(5, 2, "b", "t1", 100)],
    "a write without an answer that did not": [update(1, None, "b", 1, None), read(5, 1, "a", "t1", 100)],
    "a write without an answer that happened late": [
        update(1, None, "b", None, None), read(5, 1, "a", "t1", 100), read(9, 2, "b", "t1", 100),
    ],
    "a rotation whose new token nobody was told": [rotate(1, None, "t1", None), read(5, 2, "a", None, 100)],
    "a renewal without an answer leaves the end open": [renew(1, None, None), read(5, 2, "a", "t1", 777)],
    "revoked, and revoked again": [revoke(1, 2), revoke(3, 4), read(6, *REVOKED)],
    "an update that was answered after a revocation beside it": [revoke(1, 9), update(2, 8, "b", 1, 2), read(10, *REVOKED)],
    "a revocation without an answer": [revoke(1, None), update(2, 3, "b", 1, 2), read(5, *REVOKED)],
}  # fmt: skip

BAD = {
    "an acknowledged update is lost": [update(1, 2, "b", 1, 2), read(5, 1, "a", "t1", 100)],
    "an acknowledged update is lost under another": [
        update(1, 2, "b", 1, 2), update(3, 4, "c", None, 2), read(5, 2, "c", "t1", 100),
    ],
    "two won with one version": [update(1, 9, "b", 1, 2), update(2, 8, "c", 1, 2)],
    "two renewals made one": [renew(1, 9, 200), renew(2, 8, 300), read(10, 2, "a", "t1", 300)],
    "a renewal is undone": [renew(1, 2, 200), read(5, 2, "a", "t1", 100)],
    "data of one write with the version of another": [update(1, 2, "b", 1, 2), update(3, 4, "c", 2, 3), read(6, 3, "b", "t1", 100)],
    "what was refused happened": [read(5, 2, "b", "t1", 100)],
    "a rotation is undone": [rotate(1, 2, "t1", "t2"), read(5, 2, "a", "t1", 100)],
    "a token was rotated twice": [rotate(1, 2, "t1", "t2"), rotate(3, 4, "t1", "t3")],
    "a revocation is undone": [revoke(1, 2), read(5, 1, "a", "t1", 100)],
    "an update after a revocation": [revoke(1, 2), update(3, 4, "b", 1, 2)],
    "a renewal after a revocation": [revoke(1, 2), renew(3, 4, 200), read(6, *REVOKED)],
    "revoked by nobody": [read(5, *REVOKED)],
    "it is seen before it was asked for": [read(1, 2, "b", "t1", 100), update(5, 6, "b", 1, 2)],
    "it is seen, and then not": [update(1, None, "b", 1, None), read(3, 2, "b", "t1", 100), read(6, 1, "a", "t1", 100)],
    "without an answer, and twice": [update(1, None, "b", None, None), read(5, 3, "b", "t1", 100)],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_what_can_have_happened_is_explained(name: str) -> None:
    found = explain(GOOD[name], BEGUN)
    assert found is not None, shown(GOOD[name], BEGUN)
    assert {id(each) for each in GOOD[name] if each.answered_ns is not None} <= {id(each) for each in found}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_have_happened_is_not(name: str) -> None:
    assert explain(BAD[name], BEGUN) is None, shown(BAD[name], BEGUN)


def made_up(source: random.Random, count: int) -> tuple[list[Operation], State]:
    """A history of operations that did happen in order, each asked and answered at some time around that, a few unanswered."""
    state, history = BEGUN, []
    for number in range(1, count + 1):
        at = number * 100
        kind = source.choice(["update", "update", "renew", "rotate", "read"])
        operation = Operation(kind, at - source.randrange(250), at + 1 + source.randrange(250))  # type: ignore[arg-type]
        if kind == "update":
            operation.data, operation.told = f"d{number}", state.version + 1
            operation.if_version = source.choice([None, state.version])
        elif kind == "renew":
            operation.told = number
        elif kind == "rotate":
            operation.token, operation.told = state.token, f"t{number}"
        else:
            operation.told = state
        if source.random() < 0.1 and kind in ("update", "renew"):
            operation.answered_ns = operation.told = None
        after = operation.apply(state)
        assert after is not None
        state = after
        history.append(operation)
    final = Operation("read", count * 100 + 1000, count * 100 + 1001, told=state._replace(expires_at=state.expires_at or 5))
    return [*history, final], state


def test_random_histories_that_happened_are_explained_and_spoiled_ones_are_not() -> None:
    source = random.Random(20260101)
    spoiled = 0
    for _ in range(300):
        history, _ = made_up(source, source.randrange(1, 25))
        source.shuffle(history)
        assert explain(history, BEGUN) is not None, shown(history, BEGUN)
        answered = [each for each in history if each.kind == "update" and each.answered_ns is not None]
        if answered:
            victim = source.choice(answered)
            history.remove(victim)
            spoiled += explain(history, BEGUN) is None
    assert spoiled > 150


def brute(history: list[Operation], begun: State) -> bool:
    """The same question by trying all orders of all choices."""
    needed = [each for each in history if each.answered_ns is not None]
    loose = [each for each in history if each.answered_ns is None]
    for count in range(len(loose) + 1):
        for chosen in itertools.combinations(loose, count):
            for order in itertools.permutations([*needed, *chosen]):
                state: State | None = begun
                for place, each in enumerate(order):
                    if any(later.answered_ns is not None and later.answered_ns < each.asked_ns for later in order[place + 1 :]):
                        break
                    state = each.apply(state) if state is not None else None
                    if state is None:
                        break
                else:
                    return True
    return False


def test_it_says_what_trying_everything_says() -> None:
    source = random.Random(20260102)
    verdicts = []
    for _ in range(400):
        history, _ = made_up(source, source.randrange(1, 5))
        for each in history:
            if each.kind == "update" and each.told is not None and source.random() < 0.3:
                assert isinstance(each.told, int)
                each.told += source.choice([-1, 1])
        verdicts.append(explain(history, BEGUN) is not None)
        assert verdicts[-1] == brute(history, BEGUN), shown(history, BEGUN)
    assert 50 < sum(verdicts) < 350


def test_too_long_a_history_is_refused_and_the_longest_judged() -> None:
    longest = [update(number * 10, number * 10 + 5, f"d{number}", number, number + 1) for number in range(1, OPERATIONS_MAX + 1)]
    assert explain(longest, BEGUN) == longest
    with pytest.raises(ValueError, match="at most"):
        explain([*longest, revoke(1, 2)], BEGUN)
