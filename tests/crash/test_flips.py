"""A short form of `tests.crash.flips`: a larger log than the unit tests', one bit in 101."""

from pathlib import Path

import pytest

from tests.crash import flips
from tests.crash.records import FORMS


@pytest.mark.parametrize("form", flips.FORM_NAMES)
@pytest.mark.parametrize("seal", [False, True])
def test_flipped_bits_are_refused_or_cut_with_nothing_wrong(memory_path: Path, seal: bool, form: str) -> None:
    outcomes = flips.run(32 << 10, 101, seal, memory_path / "wal", FORMS[form])
    assert outcomes["refused"] > 1000 and outcomes["cut: nothing lost"] > 100
    assert (outcomes["cut: last frame lost"] > 0) == (not seal)


@pytest.mark.parametrize("form", flips.FORM_NAMES)
def test_cut_lengths_are_refused_with_nothing_changed(memory_path: Path, form: str) -> None:
    assert flips.run_lengths(32 << 10, 101, memory_path / "wal", FORMS[form]) > 300
