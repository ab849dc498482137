"""Short forms of the loops of `make torture` that have no file of their own; each is what it says."""

from pathlib import Path

import pytest

from tests.crash import full_disks, snapshot_flips, sync_failures, two_processes
from tests.support.rounds import short_form


def test_a_sync_that_fails_at_any_place_ends_acknowledgements(tmp_path: Path) -> None:
    struck, before = sync_failures.run(2, 120, 29, tmp_path)
    assert struck == 5 and before > 100


def test_a_disk_full_at_any_byte_of_a_segment_loses_nothing(tmp_path: Path) -> None:
    _, seed = short_form("TOKMESH_BYTES", 0)
    assert full_disks.run_log(64 + seed % 701, 701, tmp_path) >= 5


@pytest.mark.parametrize("form", ["plain", "encrypted"])
def test_a_disk_full_at_any_byte_of_a_snapshot_leaves_nothing_of_it(tmp_path: Path, form: str) -> None:
    assert full_disks.run_snapshot(13, tmp_path / form, form) > 100


def test_a_disk_full_at_any_page_costs_the_snapshot_and_nothing_else(tmp_path: Path) -> None:
    refused, taken = full_disks.run_server(tmp_path, range(0, 9, 2))
    assert refused > 0 and taken > 0


@pytest.mark.parametrize("form", ["plain", "encrypted"])
def test_flipped_bits_and_cut_lengths_of_a_large_snapshot_are_refused(memory_path: Path, form: str) -> None:
    _, seed = short_form("TOKMESH_BITS", 0)
    bits, lengths = snapshot_flips.run(seed % 211, 211, memory_path / form, form)
    assert bits > 1000 and lengths > 100


def test_one_of_several_servers_has_the_directory(tmp_path: Path) -> None:
    count, seed = short_form("TOKMESH_RIVALS", 2)
    refused, tokens = two_processes.run(count, seed, tmp_path)
    assert refused == 2 * count and tokens == 5 * count
