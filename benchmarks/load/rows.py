"""The goals: what is compared with what, and which way is better. One row of the table each.

A row that rests on requests per second also gives the same ratio per second of server processor time: where a server's
core was not busy, the generator set the pace, and only that second figure compares the servers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.load.measure import Sample

BUSY = 0.95


@dataclass(frozen=True)
class Outcome:
    """A row filled in. `met` compares `value` with the goal; nothing is rounded before."""

    key: str
    what: str
    against: str
    value: float
    unit: str
    goal: str
    met: bool
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """A ratio of two subjects. `at_least`: the goal is a floor, else a ceiling."""

    key: str
    what: str
    against: str
    subject: str
    yardstick: str
    measure: str  # "rate" or "cpu"
    goal: float
    at_least: bool

    def outcome(self, samples: Mapping[str, Sample]) -> Outcome:
        ours, theirs = samples[self.subject], samples[self.yardstick]
        if self.measure == "cpu":
            value, note = ours.cpu_us / theirs.cpu_us, f"{ours.cpu_us:.2f} µs against {theirs.cpu_us:.2f} µs"
        else:
            value = ours.operations_per_s / theirs.operations_per_s
            note = f"{ours.operations_per_s:,.0f}/s against {theirs.operations_per_s:,.0f}/s"
            if min(ours.cpu_busy, theirs.cpu_busy) < BUSY:
                note += (
                    f"; cores {ours.cpu_busy:.0%} and {theirs.cpu_busy:.0%} busy, "
                    f"per processor second {theirs.cpu_us / ours.cpu_us:.2f}"
                )
        met = value >= self.goal if self.at_least else value <= self.goal
        sign = "≥" if self.at_least else "≤"
        return Outcome(self.key, self.what, self.against, value, "×", f"{sign} {self.goal:g}", met, note)


VALIDATE = "validate"
COMPARISONS = (
    Comparison("bare", "validate, requests/s", "bare uvloop, constant answer", VALIDATE, "bare", "rate", 0.92, True),
    Comparison("nginx", "validate, server CPU", "nginx `return 200`", VALIDATE, "nginx", "cpu", 1.10, False),
    Comparison(
        "redis-get", "validate, server CPU", "Redis GET of the session", VALIDATE, "redis-get", "cpu", 1.05, False
    ),
    Comparison(
        "starlette", "validate, server CPU", "Starlette + uvicorn + Redis", VALIDATE, "starlette", "cpu", 0.125, False
    ),
    Comparison(
        "pipelined",
        "validate, 16 pipelined, requests/s",
        "bare uvloop, unpipelined",
        "pipelined",
        "bare",
        "rate",
        3,
        True,
    ),
    Comparison("batch", "batch of 1000, tokens/s", "unpipelined validate", "batch", VALIDATE, "rate", 10, True),
    Comparison(
        "create",
        "durable create, requests/s",
        "Redis SET, appendfsync always",
        "create",
        "redis-set",
        "rate",
        0.7,
        True,
    ),
)


@dataclass(frozen=True)
class Limit:
    """A figure of TokMesh alone, to be at most `goal`."""

    key: str
    what: str
    against: str
    unit: str
    goal: float

    def outcome(self, value: float, note: str, valid: bool = True) -> Outcome:
        met = valid and value <= self.goal
        return Outcome(self.key, self.what, self.against, value, self.unit, f"≤ {self.goal:g} {self.unit}", met, note)


OPEN_LOOP = Limit("openloop", "P99 of validate, open loop with creates, revokes, scrapes", "80 % of capacity", "ms", 5)
OPEN_LOOP_ROUNDS = 3
MEMORY = Limit("memory", "memory per session", "Redis: string + id key + user set", "×", 0.45)
SCRAPE = Limit("scrape", "one GET /metrics, all series", "", "ms", 3)
IMPORT = Limit("import", "`import tokmesh.cli`", "", "s", 0.25)
READY = Limit("ready", "`tokmesh serve` to ready, empty", "", "s", 1)

EXTRAS = ("openloop", "memory", "scrape", "startup", "observed")


def rows_possible(subjects: set[str]) -> list[Comparison]:
    return [row for row in COMPARISONS if {row.subject, row.yardstick} <= subjects]


def subjects_needed(keys: set[str]) -> set[str]:
    """Subjects that the named rows compare; naming a subject selects it alone. `openloop` needs validate's
    capacity, and the bare server, whose P99 under the same schedule is the machine's part."""
    needed = set(keys) - set(EXTRAS)
    for row in COMPARISONS:
        if row.key in keys:
            needed |= {row.subject, row.yardstick}
    return needed | ({VALIDATE, "bare"} if "openloop" in keys else set())
