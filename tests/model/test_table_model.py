"""Random histories, shrunk by Hypothesis when the table and its model differ."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.model.table_pair import TablePair

NUMBERS = st.integers(0, 11)
TEXTS = st.one_of(
    st.sampled_from(["", "u", "user", 'quo"te', "back\\slash", "nul\0", "líne\n", "\x7f\x1f", "中文", "🙂", "a" * 128]),
    st.text(max_size=40),
)
USERS = st.sampled_from(["u1", "u2", 'u"3', "ü4\t"])
DEVICES = st.sampled_from(["", "d1", "d2\x01"])
AGENTS = st.one_of(st.sampled_from(["", "curl/8", "Mozilla\\5"]), TEXTS)
ADDRESSES = st.sampled_from(["", "10.0.0.1", "10.0.0.2", "2001:db8::1"])
DATA = st.integers(0, 400).map(lambda size: b'{"k":"%s"}' % (b"x" * size))
TTLS_MS = st.one_of(st.integers(1, 5_000), st.sampled_from([0, 1000, 60_000, 7_200_000, 2_592_000_000]))
STEPS_MS = st.one_of(
    st.integers(0, 3_000), st.sampled_from([999, 1000, 1001, 30_000, 255_000, 256_000, 300_000, 7_200_000, 100_000_000])
)


class TableMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pair = TablePair(entries_max=4096)

    @rule(
        id_number=NUMBERS, token=NUMBERS, user=USERS, device=DEVICES, address=ADDRESSES, agent=AGENTS, ttl=TTLS_MS,
        idle=st.sampled_from([0, 0, 1, 2, 60, 86_400]), data=DATA,
    )  # fmt: skip
    def insert(
        self,
        id_number: int,
        token: int,
        user: str,
        device: str,
        address: str,
        agent: str,
        ttl: int,
        idle: int,
        data: bytes,
    ) -> None:
        self.pair.insert(id_number, token, user, device, address, agent, ttl, idle, data)

    @rule(id_number=NUMBERS, ttl=TTLS_MS)
    def renew(self, id_number: int, ttl: int) -> None:
        self.pair.renew(id_number, ttl)

    @rule(id_number=NUMBERS, data=DATA)
    def update(self, id_number: int, data: bytes) -> None:
        self.pair.update(id_number, data)

    @rule(id_number=NUMBERS, token=NUMBERS, grace=st.sampled_from([0, 500, 1000, 60_000]))
    def rotate(self, id_number: int, token: int, grace: int) -> None:
        self.pair.rotate(id_number, token, grace)

    @rule(id_number=NUMBERS)
    def revoke(self, id_number: int) -> None:
        self.pair.revoke(id_number)

    @rule(id_number=NUMBERS, back=st.integers(0, 5_000), address=st.none() | ADDRESSES, agent=st.none() | AGENTS)
    def touch(self, id_number: int, back: int, address: str | None, agent: str | None) -> None:
        self.pair.touch(id_number, back, address, agent)

    @rule(token=NUMBERS, touch=st.booleans())
    def validate(self, token: int, touch: bool) -> None:
        self.pair.validate(token, touch)

    @rule(step=STEPS_MS, budget=st.sampled_from([1, 2, 1000]))
    def pass_time(self, step: int, budget: int) -> None:
        self.pair.pass_time(step, budget)

    @rule(step=STEPS_MS)
    def pass_time_unswept(self, step: int) -> None:
        self.pair.now_ms += step

    @precondition(lambda self: self.pair.model.touched)
    @rule(limit=st.sampled_from([1, 100]))
    def drain(self, limit: int) -> None:
        self.pair.drain(limit)

    @invariant()
    def same(self) -> None:
        for number in range(12):
            self.pair.check_session(number)
            self.pair.check_token(number)
        for user in ("u1", "u2", 'u"3', "ü4\t"):
            self.pair.check_lists(user, "d1")
        self.pair.check_lists("nobody", "d2\x01")
        self.pair.check_all()


TestTableMachine = TableMachine.TestCase
TestTableMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
