"""Who is sampled: the caller's decision first, else a share by chance, and never more than the cap."""

import itertools
import math

import pytest

from tokmesh._core.sampling import Sampler
from tokmesh.ids import RandomSource
from tokmesh.telemetry.tracing.span import Span
from tokmesh.telemetry.tracing.tracer import Tracer

SAMPLED = "00-12345678901234567890123456789012-1234567890123456-01"
UNSAMPLED = SAMPLED[:-2] + "00"
SECOND_NS = 1_000_000_000
NO_CAP = 100_000


class Settings:
    """The two settings that matter here."""

    def __init__(self, sampling_ratio: float, max_traces_per_second: int = NO_CAP) -> None:
        self.sampling_ratio = sampling_ratio
        self.max_traces_per_second = max_traces_per_second


def decisions(sampler: Sampler, count: int, traceparent: str | None = None) -> list[bool]:
    """Decisions on requests a second apart, which no cap stands in the way of."""
    return [sampler.decide(traceparent, number * SECOND_NS) for number in range(count)]


def test_a_sampler_that_was_not_configured_samples_nothing() -> None:
    assert not any(decisions(Sampler(1), 10_000))


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
@pytest.mark.parametrize("ratio", [0.001, 0.01, 0.3, 0.999])
def test_the_share_sampled_is_the_ratio(ratio: float, seed: int) -> None:
    sampler = Sampler(seed)
    sampler.configure(ratio, NO_CAP)
    count = 200_000
    deviation = math.sqrt(count * ratio * (1 - ratio))
    assert abs(sum(decisions(sampler, count)) - count * ratio) < 6 * deviation, f"seed {seed}"


def test_sampled_requests_come_by_chance_and_not_at_regular_intervals() -> None:
    sampler = Sampler(7)
    sampler.configure(0.1, NO_CAP)
    positions = [position for position, chosen in enumerate(decisions(sampler, 20_000)) if chosen]
    gaps = {after - before for before, after in itertools.pairwise(positions)}
    assert 1 in gaps and max(gaps) > 30 and len(gaps) > 20


@pytest.mark.parametrize(("ratio", "expected"), [(0.0, 0), (1.0, 1000)])
def test_none_and_all_are_exact(ratio: float, expected: int) -> None:
    sampler = Sampler(3)
    sampler.configure(ratio, NO_CAP)
    assert sum(decisions(sampler, 1000)) == expected


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_the_callers_decision_stands_whatever_the_ratio(ratio: float) -> None:
    sampler = Sampler(3)
    sampler.configure(ratio, NO_CAP)
    assert all(decisions(sampler, 100, SAMPLED))
    assert not any(decisions(sampler, 100, UNSAMPLED))


@pytest.mark.parametrize("traceparent", [None, SAMPLED])
def test_the_cap_holds_for_own_and_foreign_decisions_and_counts_what_it_lets_go(traceparent: str | None) -> None:
    sampler = Sampler(3)
    sampler.configure(1.0, 10)
    at_once = [sampler.decide(traceparent, 0) for _ in range(100)]
    assert at_once == [True] * 10 + [False] * 90
    assert (sampler.sampled, sampler.rate_limited) == (10, 90)
    over_ten_seconds = sum(sampler.decide(traceparent, SECOND_NS + step * 1_000_000) for step in range(10_000))
    assert over_ten_seconds == 110 - 1, "10 a second, and the 10 that a quiet second saved up; the last falls due at its end"


def test_a_cap_of_one_is_one_a_second() -> None:
    sampler = Sampler(3)
    sampler.configure(1.0, 1)
    assert [sampler.decide(None, at) for at in (0, SECOND_NS - 1, SECOND_NS, SECOND_NS)] == [True, False, True, False]


def test_settings_can_change_while_running() -> None:
    sampler = Sampler(3)
    sampler.configure(0.0, NO_CAP)
    assert not any(decisions(sampler, 100))
    sampler.configure(1.0, NO_CAP)
    assert all(decisions(sampler, 100))


@pytest.mark.parametrize("ratio", [1.0, 0.5, 0.01, 1e-9])
def test_others_that_sample_by_trace_id_come_to_the_same_decision(ratio: float) -> None:
    ended: list[Span] = []
    tracer = Tracer(Sampler(1), RandomSource().take, ended.append)
    tracer.configure(Settings(ratio))
    for _ in range(200):
        tracer.begin("GET", "/health", False, {}, None, 0).answered(200)
    halves = [int.from_bytes(span.context.trace_id[8:], "big") for span in ended]
    assert len({span.context.trace_id for span in ended}) == 200
    assert all(0 < half <= ratio * 2**64 for half in halves), "TraceIdRatioBased of OpenTelemetry"
    assert max(halves) > ratio * 2**63, "the whole range below the threshold is used"
