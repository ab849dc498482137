"""A stream that was lost is put back from nodes that hold a part each, when each of them has put its part back."""

from pathlib import Path

from tests.cluster.test_reseed import delete_stream, reseed
from tests.observability.test_placement_seen import Placed

SESSIONS = 90


def test_a_lost_stream_is_put_back_from_the_parts_of_all_nodes(tmp_path: Path) -> None:
    placed = Placed(tmp_path, 1)
    with placed.cluster as cluster:
        placed.wait_settled()
        made = [cluster.create(number % 3, user_id=f"user-{number}") for number in range(SESSIONS)]
        revoked = made[::10]
        for session in revoked:
            assert cluster.ask(1, "POST", f"/sessions/{session['session_id']}/revoke", {"sync": True})[0] == 200
        for node in cluster.nodes:
            assert node.stop() == 0
        delete_stream(cluster)
        told = [reseed(cluster, number) for number in range(3)]
        assert [each.returncode for each in told] == [0, 0, 0], [each.stderr for each in told]
        for node in cluster.nodes:
            node.spawn()
        for node in cluster.nodes:
            node.wait_ready()
        placed.wait_settled()
        for number in range(3):
            for session in made:
                expected = ("TM-TOKN-4010", "TM-TOKN-4012") if session in revoked else (True,)
                assert cluster.verdict(number, session["token"]) in expected
