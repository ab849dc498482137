"""Nodes under random faults never answer what they must not, and all answer again within a second of the last fault.

The seed of each history is printed; TOKMESH_SEED repeats them, TOKMESH_QUORUM_HISTORIES takes more of them.
"""

from tests.cluster.simulation import SECOND, Simulation
from tests.support.rounds import short_form

FAULTS_NS = 40 * SECOND


def history(seed: int, size: int) -> Simulation:
    """Forty seconds of faults among `size` members, and four without."""
    print(f"history with seed {seed}, {size} members")
    simulation = Simulation(seed, size, max_staleness_ns=2 * SECOND)
    simulation.run(FAULTS_NS)
    simulation.heal()
    simulation.run(FAULTS_NS + SECOND)
    for node in simulation.members():
        clock_ns = node.clock_ns(simulation.now_ns)
        assert node.quorum.may_write(clock_ns), f"{node.node_id} is not current a second after all faults ended"
    simulation.run(FAULTS_NS + 5 * SECOND)
    return simulation


def run_histories(size: int) -> None:
    histories, first_seed = short_form("TOKMESH_QUORUM_HISTORIES", 6)
    ended = [history(seed, size) for seed in range(first_seed, first_seed + histories)]
    # Histories in which nobody ever answers, nothing is reached or nobody is fenced would prove nothing.
    assert sum(each.oracle.fresh_looks for each in ended) > 1000 * histories
    assert sum(each.oracle.reaches_done for each in ended) > 20 * histories
    assert sum(each.oracle.fenced_seen for each in ended) > 0
    assert sum(each.lags_seen for each in ended) > 0


def test_three_nodes_never_answer_without_what_was_acknowledged_in_time() -> None:
    run_histories(3)


def test_five_nodes_never_answer_without_what_was_acknowledged_in_time() -> None:
    run_histories(5)


def test_a_history_is_the_same_again_with_its_seed() -> None:
    first, again = (Simulation(42, 3, max_staleness_ns=2 * SECOND) for _ in range(2))
    first.run(10 * SECOND)
    again.run(10 * SECOND)
    assert first.stream.entries == again.stream.entries
    assert [node.applied for node in first.nodes] == [node.applied for node in again.nodes]
    assert vars(first.oracle) == vars(again.oracle)
