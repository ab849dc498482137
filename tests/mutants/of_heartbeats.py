"""Defects of what a node concludes from heartbeats."""

from typing import Final

from tests.mutants.mutant import Mutant, mutant

QUORUM: Final = "tests/cluster/test_quorum.py"
REACH: Final = "tests/cluster/test_reach.py"

PROOFS: Final[tuple[Mutant, ...]] = (
    mutant(
        "take an echo of any beat for one of ours",
        "cluster/quorum.py",
        "if echo.node_id == self.node_id and echo.incarnation == self.incarnation:",
        "if True:",
        f"{QUORUM}::test_nothing_is_proved_by_beats_without_an_echo_of_ours",
    ),
    mutant(
        "believe a vouch before we have applied what it told",
        "cluster/peer.py",
        "self._open_vouches.last_within(applied)",
        "self._open_vouches.last_within(2**64)",
        f"{QUORUM}::test_a_vouch_waits_until_we_have_applied_what_its_beat_told",
    ),
    mutant(
        "let uncounted peers vouch",
        "cluster/peer.py",
        "if self.beat.counted:",
        "if True:",
        f"{QUORUM}::test_a_peer_that_is_not_counted_vouches_for_nothing",
    ),
    mutant(
        "answer before we are counted",
        "cluster/quorum.py",
        "if not self.is_counted or self.is_superseded",
        "if self.is_superseded",
        f"{QUORUM}::test_a_node_that_is_not_counted_is_not_current_whoever_vouches",
    ),
    mutant(
        "call half of an even number a majority",
        "cluster/quorum.py",
        "return len(self._joined_ns) // 2 + 1",
        "return (len(self._joined_ns) + 1) // 2",
        f"{QUORUM}::test_a_proof_takes_a_majority_with_ourselves",
    ),
    mutant(
        "take older incarnations for newer ones",
        "cluster/quorum.py",
        "if peer is None or beat.incarnation > peer.beat.incarnation:",
        "if peer is None or beat.incarnation != peer.beat.incarnation:",
        f"{QUORUM}::test_an_older_incarnation_says_nothing_of_the_present",
    ),
    mutant(
        "acknowledge what we have not applied",
        "cluster/quorum.py",
        "applied = min(self.applied, sorted(told, reverse=True)[self.majority - 1])",
        "applied = sorted(told, reverse=True)[self.majority - 1]",
        f"{QUORUM}::test_acknowledged_is_what_a_counted_majority_and_we_have_applied",
    ),
)
REACHES: Final[tuple[Mutant, ...]] = (
    mutant(
        "fence members off while a change of them is recent",
        "cluster/quorum.py",
        "now_ns - since_ns >= self._staleness_ns_max() + SLACK_NS",
        "True",
        f"{REACH}::test_a_change_of_members_is_recent_until_all_who_answer_know_it",
    ),
    mutant(
        "believe echoes from before the witness had applied",
        "cluster/reach.py",
        "if witness is None or witness.links_applied < sequence else",
        "if witness is None else",
        f"{REACH}::test_a_witness_counts_only_by_a_beat_with_echoes_from_after_it_applied",
    ),
    mutant(
        "take what nobody knows for silence",
        "cluster/reach.py",
        "link is None or link.until_ns",
        "link is not None and link.until_ns",
        f"{REACH}::test_members_of_whom_nothing_is_known_may_have_heard_each_other_but_are_too_few",
    ),
    mutant(
        "do not wait for ourselves when we are no member",
        "cluster/reach.py",
        " | {view.node_id}) - applied",
        ") - applied",
        f"{REACH}::test_a_node_that_is_no_member_by_its_list_waits_for_itself_too",
    ),
)
