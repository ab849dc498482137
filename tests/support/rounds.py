"""Tests that take as many random rounds as one likes: the command line of their long form, the settings of their short one.

    python -m tests.crash.kills --count 200 [--seed S] [--directory D]

The seed is printed before anything happens, and is in the text of a `Lost`.
"""

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

SEEDS: Final = 2**32


class Lost(AssertionError):
    """Something acknowledged is missing or altered after a crash, or what held it cannot be opened."""


def long_form(
    description: str | None,
    count: int,
    run: Callable[[argparse.Namespace, Path], str],
    flags: Mapping[str, str] | None = None,
    choices: Mapping[str, Sequence[str]] | None = None,
) -> int:
    """Parses the command line and gives `run` what it says and an empty folder; prints what that returns.

    count: rounds, unless `--count` says otherwise. flags: further switches, with their help. choices: options of which one of
    several values has to be given. 1 when something was lost.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--seed", type=int, default=_any_seed(), help="repeats a run")
    parser.add_argument("--directory", type=Path, help="where to work; a temporary place when left out")
    for flag, text in (flags or {}).items():
        parser.add_argument(flag, action="store_true", help=text)
    for option, values in (choices or {}).items():
        parser.add_argument(f"--{option}", choices=values, required=True)
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        try:
            print(run(arguments, Path(directory)))
        except Lost as lost:
            print(f"LOST: {lost}", file=sys.stderr)
            return 1
    return 0


def short_form(variable: str, count: int) -> tuple[int, int]:
    """(rounds, seed) of a run under pytest; the environment's `variable` and TOKMESH_SEED make it longer or repeat it."""
    rounds, seed = int(os.environ.get(variable, count)), int(os.environ.get("TOKMESH_SEED", _any_seed()))
    print(f"seed {seed}")
    return rounds, seed


def _any_seed() -> int:
    return random.SystemRandom().randrange(SEEDS)
