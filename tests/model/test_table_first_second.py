"""The first session of an empty table, created within the second it ends in.

Found by the state machine under the sanitizers: the empty wheel jumped to the second after the creation, so that a deadline in
the same second was swept before its time.
"""

import pytest

from tests.model.table_pair import TablePair
from tokmesh._core.table import Outcome, Verdict


@pytest.mark.parametrize("ttl_ms", [1, 500, 998])
def test_first_session_lives_to_its_deadline_within_the_second(ttl_ms: int) -> None:
    pair = TablePair()
    pair.now_ms += 1
    assert pair.insert(0, 0, "u1", "", "", "", ttl_ms, 0, b"{}") == Outcome.INSERTED
    pair.pass_time(ttl_ms - 1)
    assert pair.validate(0, touch=False) == Verdict.VERDICT_VALID
    pair.pass_time(1)
    assert pair.validate(0, touch=False) == Verdict.VERDICT_EXPIRED
