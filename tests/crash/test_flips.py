"""A short form of `tests.crash.flips`: a larger log than the unit tests', one bit in 101."""

from pathlib import Path

import pytest

from tests.crash import flips


@pytest.mark.parametrize("seal", [False, True])
def test_flipped_bits_are_refused_or_cut_with_nothing_wrong(tmp_path: Path, seal: bool) -> None:
    outcomes = flips.run(32 << 10, 101, seal, tmp_path / "wal")
    assert outcomes["refused"] > 1000 and outcomes["cut: nothing lost"] > 100
    assert (outcomes["cut: last frame lost"] > 0) == (not seal)
