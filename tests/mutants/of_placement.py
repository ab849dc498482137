"""Defects of placement: of taking shards on and leaving them."""

from typing import Final

from tests.mutants.mutant import Mutant, mutant

HOLDING: Final = "tests/cluster/test_holding.py"
LOADING: Final = "tests/cluster/test_loading_histories.py"

PLACEMENT: Final[tuple[Mutant, ...]] = (
    mutant(
        "leave a shard to whoever announced it before hearing of that",
        "cluster/holding.py",
        " if peers[node_id].heard_of_us >= self._leaving_from_beat]",
        "]",
        HOLDING,
    ),
    mutant(
        "leave a shard to fewer than are to hold it",
        "cluster/holding.py",
        "return max(1, min(self._copies, len(self._planned(now_ns).in_use) - 1))",
        "return 1",
        HOLDING,
    ),
    mutant(
        "let a record that was read out of turn undo one that came in turn",
        "following.py",
        " and session_id not in self._seen",
        "",
        LOADING,
    ),
    mutant(
        "hold a shard that was not loaded",
        "following.py",
        "self.held = record.held & before",
        "self.held = record.held",
        LOADING,
    ),
    mutant(
        "go on with a load that a snapshot has cut in two",
        "following.py",
        "(ShardsHeld(time_ms, self.held, 0),),",
        "(ShardsHeld(time_ms, self.held, self.loading),),",
        LOADING,
    ),
    mutant(
        "hold a shard while what was replaced as it was read has not come in its turn",
        "cluster/loading.py",
        "            await self._log.propose_alone(self._start_stated())\n            await self._heard_activity()\n",
        "            await self._heard_activity()\n",
        "tests/cluster/test_loading.py",
    ),
    mutant(
        "let a session live whose end a replica that was behind gave later",
        "cluster/loading.py",
        "SessionHeld.KIND, SessionsRevoked.KIND)",
        "SessionHeld.KIND)",
        "tests/cluster/test_loading.py",
    ),
    mutant(
        "end sessions for their idle limit while they are loaded",
        "cluster/missed_touches.py",
        "if self.is_behind or self._is_loading() else 0\n",
        "if self.is_behind else 0\n",
        "tests/cluster/test_loaded_activity.py",
    ),
    mutant(
        "keep what a replay has dropped",
        "store.py",
        "        self._forget()\n        self._replayed += 1\n",
        "        self._replayed += 1\n",
        LOADING,
    ),
    mutant(
        "say no about a shard that is held elsewhere",
        "_core/table.pyx",
        "            return VERDICT_ELSEWHERE\n",
        "            return VERDICT_UNKNOWN\n",
        "tests/unit/test_shards.py",
    ),
)
