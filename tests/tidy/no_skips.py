"""A pytest plugin for the full run: a test that was skipped, deselected or expected to fail fails the run.

Loaded by `make test` only (`-p tests.tidy.no_skips`); a developer's own run may choose tests.
"""

from typing import Any

import pytest

NOT_RUN = ("skipped", "deselected", "xfailed", "xpassed")


def not_run_counts(stats: dict[str, list[Any]]) -> dict[str, int]:
    """Outcomes of `stats` (terminal reporter's lists by outcome) that mean a test proved nothing, with their counts."""
    return {outcome: len(stats[outcome]) for outcome in NOT_RUN if stats.get(outcome)}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Turns a green run with tests left out into a failed one."""
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    left_out = not_run_counts(reporter.stats)
    if left_out and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        counts = ", ".join(f"{count} {outcome}" for outcome, count in left_out.items())
        reporter.write_line(f"Tests left out fail this run: {counts}", red=True)
