"""Garbage collections as the interpreter tells of them."""

import gc

from tokmesh.telemetry.gc_pauses import GcPauses


class Ring:
    """Refers to itself: only a collection frees it."""

    def __init__(self) -> None:
        self.itself = self


def counts(pauses: GcPauses) -> list[int]:
    return [pauses.histogram.snapshot(generation)[0][-1] for generation in range(3)]


def test_each_collection_counts_in_its_generation_while_measuring() -> None:
    pauses = GcPauses()
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()  # only the collections asked for here
    try:
        pauses.start()
        pauses.start()  # a second start adds nothing that one stop would leave behind
        rings = [Ring() for _ in range(100)]
        del rings
        gc.collect(2)
        gc.collect(0)
        gc.collect(0)
        pauses.stop()
        gc.collect(1)
    finally:
        pauses.stop()
        if enabled:
            gc.enable()
    assert counts(pauses) == [2, 0, 1]
    assert pauses.histogram.snapshot(2)[1] > 0
    assert pauses.collected.read(2) >= 100 and pauses.uncollectable.read_all() == [0, 0, 0]


def test_an_end_whose_start_was_not_seen_is_no_pause() -> None:
    pauses = GcPauses()
    pauses._on_collection("stop", {"generation": 0, "collected": 1, "uncollectable": 0})
    assert counts(pauses) == [0, 0, 0]
