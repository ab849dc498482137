"""Changes of the cluster are told once each, and nothing is told that is not so."""

import logging
from typing import NamedTuple

import pytest

from tokmesh.cluster.changes import UNHEARD_NOTES, Changes


class Member(NamedTuple):
    node_id: str
    state: str


@pytest.fixture(autouse=True)
def at_info(caplog: pytest.LogCaptureFixture) -> None:
    """Everything is heard."""
    caplog.set_level(logging.INFO, "tokmesh.cluster")


def note(changes: Changes, *states: str, times: int = 1) -> None:
    for _ in range(times):
        members = [Member(f"tmnd-{number}", state) for number, state in enumerate(states)]
        changes.note(members, quorum_lost=False, fenced=False)


def test_a_node_that_has_just_joined_is_not_told_to_be_away_before_its_first_beat(caplog: pytest.LogCaptureFixture) -> None:
    changes = Changes()
    note(changes, "active")
    note(changes, "active", "down", times=UNHEARD_NOTES - 1)
    note(changes, "active", "active")
    assert caplog.messages == ["a node is a member", "a node is a member"]


def test_a_node_that_is_away_from_the_start_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    changes = Changes()
    note(changes, "active", "down", times=UNHEARD_NOTES + 5)
    assert caplog.messages == ["a node is a member", "a node cannot be heard"]


def test_a_node_that_was_heard_is_told_to_be_away_at_once_and_to_be_there_again(caplog: pytest.LogCaptureFixture) -> None:
    changes = Changes()
    note(changes, "active", "active")
    note(changes, "active", "down", times=3)
    note(changes, "active", "active", times=3)
    note(changes, "active")
    goes_and_comes = ["a node cannot be heard", "a node is heard again", "a node is no member any more"]
    assert caplog.messages == ["a node is a member", "a node is a member", *goes_and_comes]
