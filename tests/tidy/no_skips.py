"""A pytest plugin for the full run: a test that was skipped, deselected or expected to fail fails the run.

Loaded by `make test` only (`-p tests.tidy.no_skips`); a developer's own run may choose tests. Under pytest-xdist outcomes reach the
reporter from the workers, but what a worker deselected does not: each tells its number at its end.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pytest

NOT_RUN: Final = ("skipped", "xfailed", "xpassed")
DESELECTED: Final = pytest.StashKey[int]()
_WORKER_OUTPUT: Final = "tests.tidy.no_skips.deselected"


def not_run_counts(stats: Mapping[str, Sequence[object]], deselected: int) -> dict[str, int]:
    """Outcomes of `stats` (terminal reporter's lists by outcome) that mean a test proved nothing, with their counts."""
    counts = {outcome: len(stats.get(outcome, ())) for outcome in NOT_RUN} | {"deselected": deselected}
    return {outcome: count for outcome, count in counts.items() if count}


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Counts, in the process that collects."""
    if items:
        stash = items[0].config.stash
        stash[DESELECTED] = stash.get(DESELECTED, 0) + len(items)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """A worker has ended. All of them collect, and so deselect, the same tests."""
    stash = node.config.stash
    stash[DESELECTED] = max(stash.get(DESELECTED, 0), getattr(node, "workeroutput", {}).get(_WORKER_OUTPUT, 0))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Turns a green run with tests left out into a failed one."""
    deselected = session.config.stash.get(DESELECTED, 0)
    output: dict[str, int] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_WORKER_OUTPUT] = deselected
        return
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    left_out = not_run_counts(reporter.stats, deselected)
    if left_out and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        counts = ", ".join(f"{count} {outcome}" for outcome, count in left_out.items())
        reporter.write_line(f"Tests left out fail this run: {counts}", red=True)
