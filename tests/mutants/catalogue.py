"""The defects that `make mutants` plants.

Each breaks a promise of ARCHITECTURE.md's; one that no test sees is a missing test. A text that is replaced stands exactly once in
its file (test_catalogue.py).
"""

from typing import Final

from tests.mutants.mutant import Mutant
from tests.mutants.of_heartbeats import PROOFS, REACHES
from tests.mutants.of_placement import PLACEMENT
from tests.mutants.of_snapshots import LOADING, TAKING
from tests.mutants.of_the_cluster import CLUSTER
from tests.mutants.of_the_log import COMMITS, LOG_FILES, READING, SEALING

MUTANTS: Final[tuple[Mutant, ...]] = (
    *COMMITS, *LOG_FILES, *READING, *SEALING, *TAKING, *LOADING, *PROOFS, *REACHES, *CLUSTER, *PLACEMENT,
)  # fmt: skip
