"""Whatever happens: no decision breaks a rule, and in the end everybody has everything."""

from random import Random

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from router.domain.swarm import HUB, Fleet, Grant, Result, Swarm

PIECES = 12
FULL = (1 << PIECES) - 1
NODES = ["a", "b", "c", "d", "e"]
LIARS = {"d"}
# No shrinking: a found example is short enough, and the rest is time.
PHASES = (Phase.explicit, Phase.generate)
NAMES = st.sampled_from(NODES)


def digest(piece: int) -> bytes:
    return piece.to_bytes(32, "big")


class Anything(RuleBasedStateMachine):
    """Nodes join, fetch, fail and vanish; `d` sends wrong bytes to whoever asks."""

    @initialize(seed=st.integers(0, 1000))
    def begin(self, seed: int) -> None:
        self.now = 0.0
        self.fleet = Fleet(random=Random(seed))
        self.swarm = Swarm(PIECES, 4 << 20, self.fleet)
        self.have: dict[str, int] = {}
        self.members: dict[str, int] = {}
        self.open: list[Grant] = []
        self.granted_at: dict[Grant, float] = {}
        self.accused: set[str] = set()
        self.cut: set[tuple[str, str]] = set()

    # What the router is told

    @rule(node=NAMES, have=st.integers(0, FULL), capacity=st.integers(0, 5))
    def join(self, node: str, have: int, capacity: int) -> None:
        self._forget(node)
        self.have[node] = have
        self.members[node] = capacity
        known = {piece: digest(piece) for piece in range(PIECES) if have >> piece & 1}
        self.swarm.join(node, have, known if capacity % 2 else {}, self.now)
        self.swarm.set_capacity(node, capacity)
        self._decide()

    @rule(node=NAMES)
    def offer(self, node: str) -> None:
        self._forget(node)
        self.have[node] = FULL
        self.swarm.offer(node, self.now)
        self._decide()

    @rule(node=NAMES)
    def vanish(self, node: str) -> None:
        self._forget(node)
        self.swarm.withdraw(node)
        self._begin_anew_when_empty()
        self._decide()

    @rule(node=NAMES, capacity=st.integers(0, 6))
    def resize(self, node: str, capacity: int) -> None:
        if node in self.members:
            self.members[node] = capacity
            self.swarm.set_capacity(node, capacity)
            self._decide()

    @rule(which=st.integers(0, 50), result=st.sampled_from(list(Result)))
    def end(self, which: int, result: Result) -> None:
        if self.open:
            self._end(self.open[which % len(self.open)], result)
            self._decide()

    @rule(which=st.integers(0, 50))
    def bring(self, which: int) -> None:
        if self.open:
            self._end(self.open[which % len(self.open)], Result.GOT)
            self._decide()

    @rule(span=st.floats(0.01, 100.0))
    def wait(self, span: float) -> None:
        self.now += span
        self._decide()

    # What must hold

    @invariant()
    def nobody_works_on_more_than_it_can(self) -> None:
        for node, capacity in getattr(self, "members", {}).items():
            mine = [grant for grant in self.open if grant.node_id == node]
            assert len(mine) <= max(capacity, self._most.get(node, 0))

    def teardown(self) -> None:
        """From wherever the rules have led to: everybody gets everything."""
        for node in self.members:
            self.members[node] = max(self.members[node], 1)
            self.swarm.set_capacity(node, self.members[node])
        for _ in range(2000):
            self._decide()
            if self.open:
                self._end(self.open[0], Result.GOT)
            elif all(self.have[node] == FULL or self.swarm.is_alone(node) for node in self.members):
                return
            else:
                wake = self.swarm.wake_at()
                assert wake is not None, "somebody waits, and nothing will wake it"
                assert wake > self.now
                self.now = max(self.now + 0.001, wake)
        raise AssertionError("it takes for ever")

    def _decide(self) -> None:
        self._most = {
            node: sum(grant.node_id == node for grant in self.open) for node in self.members
        }
        self._grant()
        for wanted in self.swarm.digests_wanted(self.now):
            have = self.have[wanted.holder_id]
            assert all(have >> piece & 1 for piece in wanted.pieces)
            told = {piece: digest(piece) for piece in wanted.pieces}
            self.swarm.take_digests(wanted.holder_id, told, [], self.now)
            self._grant()

    def _grant(self) -> None:
        for grant in self.swarm.decide(self.now):
            self._check(grant)
            self.open.append(grant)
            self.granted_at[grant] = self.now

    def _check(self, grant: Grant) -> None:
        node, piece, holder = grant.node_id, grant.piece, grant.holder_id
        mine = [other for other in self.open if other.node_id == node]
        assert grant not in self.open
        assert len(mine) < self.members[node]
        assert not self.have[node] >> piece & 1
        if holder == HUB:
            assert grant.digest == b""
        else:
            assert self.have[holder] >> piece & 1
            assert holder not in self.accused
            assert grant.digest == digest(piece)
            # One that takes longer than a transfer may is thought to be over.
            recent = self.now - self.fleet.settings.peer_floor
            sending = [
                other
                for other in self.open
                if other.holder_id == holder and self.granted_at[other] > recent
            ]
            assert len(sending) < self.fleet.settings.sends

    def _end(self, grant: Grant, result: Result) -> None:
        self.open.remove(grant)
        node, holder = grant.node_id, grant.holder_id
        if holder in LIARS and result is Result.GOT:
            result = Result.WRONG
        if result is Result.WRONG and holder not in LIARS:
            result = Result.FAILED
        if result is Result.GOT:
            self.have[node] |= 1 << grant.piece
        if result is Result.WRONG:
            self.accused.add(holder)
        told = digest(grant.piece) if holder == HUB else b""
        self.now += 0.05
        self.swarm.outcome(node, grant.piece, result, holder, told, 0.05, self.now)
        assert {found.holder_id for found in self.swarm.accusations()} <= LIARS
        if self.have[node] == FULL:
            self._forget(node)
            self.have[node] = FULL
            self.swarm.leave(node, complete=True, now=self.now)

    def _forget(self, node: str) -> None:
        self.open = [grant for grant in self.open if grant.node_id != node]
        self.members.pop(node, None)
        self.have.pop(node, None)

    def _begin_anew_when_empty(self) -> None:
        if self.swarm.is_empty:
            self.swarm = Swarm(PIECES, 4 << 20, self.fleet)
            self.accused.clear()


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=40, stateful_step_count=30, phases=PHASES)
