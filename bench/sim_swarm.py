"""The swarm's real scheduler with simulated links: how near it comes to the bound, at what cost.

`python -m bench.sim_swarm` prints a line for each scenario and draws docs/images/swarm-sim.svg;
`--quick` runs small numbers and draws nothing. Links are fluids (see `bench.sim_links`). A node
works on `CAPACITY` pieces at a time. Between the end of a piece and the first byte of the next
granted one lies one round trip to the router and one to the holder, or the Hub; the router hears
of a piece at the moment it ends. Nodes verify at no cost. A node that dies is silent: those that
fetch from it fail after `STALL` seconds, and the router knows after `NOTICE`.

The bound is the largest of: size ÷ the source's rate (shared by all sites), size ÷ a node's
download rate, and what all nodes need ÷ what the source and all nodes together can send. Seconds of
the scheduler are CPU seconds of this machine, over all its calls.
"""

import argparse
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from bench.plot import Bar, write_bars
from bench.sim_links import Flow, Link, World
from protos.pieces import piece_bytes, piece_count
from router.domain.swarm import HUB, Fleet, Grant, Result, Swarm, Wanted

CAPACITY = 6
ROUTER_ROUND, PEER_ROUND, HUB_ROUND = 0.002, 0.001, 0.03
STALL, NOTICE = 2.0, 2.0
# Nodes go on by themselves after the router has been silent for so long, so many pieces at a time.
SILENCE, OWN_PIECES = 2.0, 4
MB = 1e6
PLOT = Path(__file__).parents[1] / "docs/images/swarm-sim.svg"


@dataclass(frozen=True)
class Scenario:
    """Rates are bytes per second, moments seconds, nodes are counted from 0."""

    name: str
    nodes: int
    size: int
    source: float = 20 * MB
    connection: float = 20 * MB
    down: float = 125 * MB
    up: float = 125 * MB
    slow: tuple[int, ...] = ()
    slow_up: float = 125 * MB / 20
    dying: dict[int, float] = field(default_factory=dict)
    liars: tuple[int, ...] = ()
    sites: int = 1
    # The router is away from, and for.
    pause: tuple[float, float] | None = None
    # Nodes that join so much later than the first, evenly spread.
    spread: float = 0.2
    # Nodes that hold the file already.
    whole: int = 0

    @property
    def bound(self) -> float:
        """Seconds that no scheduler can beat, for the nodes that live to the end."""
        living = self.nodes - len(self.dying) - self.whole
        ups = (self.nodes - len(self.slow)) * self.up + len(self.slow) * self.slow_up
        line = 0.0 if self.whole else self.sites * self.size / self.source
        return max(line, self.size / self.down, living * self.size / (ups + self.source))


@dataclass(frozen=True)
class Outcome:
    """What a scenario showed."""

    scenario: Scenario
    seconds: float
    source_bytes: float
    grants: int
    # Microseconds of the scheduler per granted piece: mean, and of 99 in 100 events at most.
    mean: float
    p99: float
    scheduler_seconds: float
    accused: tuple[str, ...]

    @property
    def over_bound(self) -> float:
        """Time over the bound."""
        return self.seconds / self.scenario.bound

    @property
    def source_ratio(self) -> float:
        """Bytes of the source over the size, per site."""
        return self.source_bytes / self.scenario.size / self.scenario.sites


class _Node:
    def __init__(self, name: str, site: int, down: float, up: float) -> None:
        self.name = name
        self.site = site
        self.down = Link(down)
        self.up = Link(up)
        self.have = 0
        self.lies = False
        self.alive = True
        self.joined = False
        self.done_at: float | None = None
        self.flows: dict[tuple[int, str], Flow] = {}


class Simulation:
    """One scenario, from the first join until every living node has the file."""

    def __init__(self, scenario: Scenario, seed: int = 1) -> None:
        self._of = scenario
        self._random = Random(seed)
        self._world = World()
        self._source = Link(scenario.source)
        self._length = piece_bytes(scenario.size)
        self._count = piece_count(scenario.size)
        self._full = (1 << self._count) - 1
        self._source_bytes = 0.0
        self._grants = 0
        self._spent = 0.0
        self._samples = array("f")
        self._away = False
        self._accused: list[str] = []
        self._wakes: dict[int, float] = {}
        self._nodes = [self._make(number) for number in range(scenario.nodes)]
        self._by_name = {node.name: node for node in self._nodes}
        self._left = scenario.nodes - len(scenario.dying) - scenario.whole
        self._start_router()

    def run(self) -> Outcome:
        """Runs it. Raises `RuntimeError` when nothing happens any more though nodes wait."""
        of, world = self._of, self._world
        for number, node in enumerate(self._nodes):
            when = of.spread * number / of.nodes
            world.at(0.0 if number < of.whole else when, self._join, node)
        for number, when in of.dying.items():
            world.at(when, self._die, self._nodes[number])
        if of.pause:
            world.at(of.pause[0], self._go_away)
            world.at(of.pause[0] + of.pause[1], self._come_back)
        while self._left:
            if not world.step():
                raise RuntimeError(f"{of.name}: {self._left} nodes wait for ever")
        ordered = sorted(self._samples)
        return Outcome(
            scenario=of,
            seconds=world.now,
            source_bytes=self._source_bytes,
            grants=self._grants,
            mean=self._spent / max(self._grants, 1) * 1e6,
            p99=ordered[int(len(ordered) * 0.99)] * 1e6 if ordered else 0.0,
            scheduler_seconds=self._spent,
            accused=tuple(self._accused),
        )

    def _make(self, number: int) -> _Node:
        of = self._of
        up = of.slow_up if number in of.slow else of.up
        node = _Node(f"node-{number}", number % of.sites, of.down, up)
        node.lies = number in of.liars
        if number < of.whole:
            node.have = self._full
        return node

    # The router

    def _start_router(self) -> None:
        self._fleet = Fleet(random=Random(self._random.random()))
        self._swarms = [
            Swarm(self._count, self._length, self._fleet) for _ in range(self._of.sites)
        ]

    def _go_away(self, _: None) -> None:
        self._away = True
        for node in self._nodes:
            self._world.at(self._world.now + SILENCE, self._help_itself, node)

    def _come_back(self, _: None) -> None:
        self._away = False
        self._start_router()
        for node in self._nodes:
            if node.alive and node.joined:
                self._join(node)

    def _join(self, node: _Node) -> None:
        node.joined = True
        if self._away or not node.alive:
            return
        swarm, now = self._swarms[node.site], self._world.now
        started = time.thread_time()
        if node.have == self._full:
            swarm.offer(node.name, now)
        else:
            swarm.join(node.name, node.have, {}, now)
            swarm.set_capacity(node.name, CAPACITY)
        self._decide(node.site, started)

    def _decide(self, site: int, started: float) -> None:
        """Asks for decisions after an event whose handling began at `started`."""
        swarm, now = self._swarms[site], self._world.now
        grants = swarm.decide(now)
        asked = swarm.digests_wanted(now)
        wake = swarm.wake_at()
        accusations = swarm.accusations()
        spent = time.thread_time() - started
        self._spent += spent
        self._grants += len(grants)
        if grants:
            self._samples.append(spent / len(grants))
        self._accused += [accusation.holder_id for accusation in accusations]
        for grant in grants:
            rounds = ROUTER_ROUND + (PEER_ROUND if grant.holder_id else HUB_ROUND)
            self._world.at(now + rounds, self._fetch, grant)
        for wanted in asked:
            self._world.at(now + ROUTER_ROUND, self._answer, (site, wanted))
        if wake is not None and not now < self._wakes.get(site, 0.0) <= wake:
            self._wakes[site] = max(wake, now + 1e-3)
            self._world.at(self._wakes[site], self._wake, site)

    def _wake(self, site: int) -> None:
        if not self._away and self._wakes.get(site) == self._world.now:
            self._decide(site, time.thread_time())

    def _answer(self, about: tuple[int, Wanted]) -> None:
        site, wanted = about
        if self._away or not self._by_name[wanted.holder_id].alive:
            return
        started = time.thread_time()
        digests = {piece: self._digest(piece) for piece in wanted.pieces}
        self._swarms[site].take_digests(wanted.holder_id, digests, [], self._world.now)
        self._decide(site, started)

    def _digest(self, piece: int) -> bytes:
        return piece.to_bytes(32, "big")

    # The nodes

    def _fetch(self, grant: Grant) -> None:
        node = self._by_name[grant.node_id]
        key = (grant.piece, grant.holder_id)
        if not node.alive or node.have >> grant.piece & 1 or key in node.flows:
            if node.alive:
                self._report(node, grant.piece, Result.RETURNED, grant.holder_id)
            return
        holder = self._by_name.get(grant.holder_id)
        if holder is not None and not holder.alive:
            self._world.at(self._world.now + STALL, self._fail, (node, *key))
            return
        self._transfer(node, grant.piece, grant.holder_id)

    def _transfer(self, node: _Node, piece: int, holder_id: str) -> None:
        size = min(self._length, self._of.size - piece * self._length)
        up = self._by_name[holder_id].up if holder_id else self._source
        cap = self._of.connection if holder_id == HUB else float("inf")
        flow = Flow(size, up, node.down, cap, lambda _: self._arrive(node, piece, holder_id))
        node.flows[piece, holder_id] = flow
        self._world.start(flow)

    def _arrive(self, node: _Node, piece: int, holder_id: str) -> None:
        del node.flows[piece, holder_id]
        if holder_id == HUB:
            self._source_bytes += min(self._length, self._of.size - piece * self._length)
        elif self._by_name[holder_id].lies:
            self._report(node, piece, Result.WRONG, holder_id)
            return
        node.have |= 1 << piece
        if node.have == self._full and node.done_at is None:
            node.done_at = self._world.now
            self._left -= 1
        self._report(node, piece, Result.GOT, holder_id)

    def _fail(self, about: tuple[_Node, int, str]) -> None:
        node, piece, holder_id = about
        node.flows.pop((piece, holder_id), None)
        if node.alive:
            self._report(node, piece, Result.FAILED, holder_id)

    def _report(self, node: _Node, piece: int, result: Result, holder_id: str) -> None:
        if self._away:
            if node.alive and node.have != self._full:
                self._world.at(self._world.now + SILENCE, self._help_itself, node)
            return
        swarm, now = self._swarms[node.site], self._world.now
        digest = self._digest(piece) if holder_id == HUB else b""
        started = time.thread_time()
        swarm.outcome(node.name, piece, result, holder_id, digest, None, now)
        if node.have == self._full:
            swarm.leave(node.name, complete=True, now=now)
        self._decide(node.site, started)

    def _help_itself(self, node: _Node) -> None:
        """Without the router a node takes any pieces from the Hub."""
        if not self._away or not node.alive or not node.joined:
            return
        on_the_way = {piece for piece, _ in node.flows}
        while len(node.flows) < OWN_PIECES:
            rest = [
                piece
                for piece in range(self._count)
                if not node.have >> piece & 1 and piece not in on_the_way
            ]
            if not rest:
                return
            piece = self._random.choice(rest)
            on_the_way.add(piece)
            self._transfer(node, piece, HUB)

    def _die(self, node: _Node) -> None:
        node.alive = False
        for (_, holder_id), flow in list(node.flows.items()):
            if holder_id == HUB:
                self._source_bytes += self._length - max(flow.left, 0.0)
            self._world.stop(flow)
        node.flows.clear()
        for other in self._nodes:
            for piece, holder_id in list(other.flows):
                if holder_id == node.name:
                    self._world.stop(other.flows[piece, holder_id])
                    self._world.at(self._world.now + STALL, self._fail, (other, piece, holder_id))
        self._world.at(self._world.now + NOTICE, self._notice, node)

    def _notice(self, node: _Node) -> None:
        if not self._away:
            started = time.thread_time()
            self._swarms[node.site].withdraw(node.name)
            self._decide(node.site, started)


GB = 10**9
GIB = 1 << 30


def scenarios(*, quick: bool) -> list[Scenario]:
    """What is run, the small ones first."""
    eight = Scenario("8 nodes, 1 GiB", 8, GIB)
    hurt = Scenario(
        "8 nodes, 1 GiB, two die, one slow",
        8,
        GIB,
        slow=(2,),
        slow_up=1 * MB,
        dying={5: 15.0, 6: 30.0},
    )
    pause = Scenario("8 nodes, 1 GiB, router away 10 s", 8, GIB, pause=(20.0, 10.0))
    liar = Scenario("8 nodes, 1 GiB, one lies", 8, GIB, liars=(3,))
    if quick:
        small = [replace(each, size=GIB // 4) for each in (eight, liar)]
        hurt = replace(hurt, size=GIB // 4, dying={5: 4.0, 6: 8.0})
        return [*small, hurt, Scenario("60 nodes, 2 GB", 60, 2 * GB)]
    size = 40 * GB
    slow = tuple(range(5, 100, 20))
    return [
        eight,
        hurt,
        pause,
        liar,
        Scenario("8 nodes, 1 GiB, fast source", 8, GIB, source=1000 * MB, connection=100 * MB),
        Scenario("8 nodes, 4 GiB, connections of 5 MB/s", 8, 4 * GIB, 100 * MB, 5 * MB),
        Scenario("10 nodes", 10, size),
        Scenario("100 nodes", 100, size),
        Scenario(
            "100 nodes, 5 slow, 5 die, one lies",
            100,
            size,
            slow=slow,
            dying={number: 150.0 * (number + 1) for number in range(5)},
            liars=(50,),
        ),
        Scenario("100 nodes in two sites", 100, size, sites=2),
        Scenario("100 late nodes, 2 hold it", 102, size, whole=2),
        Scenario("1,000 nodes", 1000, size),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all scenarios, or those whose name holds the given words."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="small numbers, no plot")
    parser.add_argument("--only", default="", help="scenarios whose name holds this")
    options = parser.parse_args(arguments)
    print(
        f"{'':38}{'time':>9}{'÷ bound':>9}{'source':>8}{'µs each':>9}{'P99':>7}{'ms/node/GB':>12}"
    )
    outcomes = []
    for scenario in scenarios(quick=options.quick):
        if options.only not in scenario.name:
            continue
        outcome = Simulation(scenario).run()
        outcomes.append(outcome)
        per = outcome.scheduler_seconds / scenario.nodes / (scenario.size / GB) * 1e3
        print(
            f"{scenario.name:38}{outcome.seconds:8.1f}s{outcome.over_bound:9.3f}"
            f"{outcome.source_ratio:8.3f}{outcome.mean:9.1f}{outcome.p99:7.0f}{per:12.2f}"
            + (f"  accused: {', '.join(outcome.accused)}" if outcome.accused else ""),
            flush=True,
        )
    if not options.quick and not options.only:
        _draw(outcomes)
    return 0


def _draw(outcomes: Sequence[Outcome]) -> None:
    def bars(value: Callable[[Outcome], float], note: Callable[[Outcome], str]) -> list[Bar]:
        return [
            Bar(each.scenario.name, value(each), value(each), value(each), note(each), True)
            for each in outcomes
        ]

    write_bars(
        PLOT,
        "The swarm's scheduler with simulated links",
        [
            (
                "time until the last node is done, over the bound",
                bars(lambda each: each.over_bound, lambda each: f"{each.over_bound:.3f}"),
            ),
            (
                "bytes from the source, over the size (per site)",
                bars(lambda each: each.source_ratio, lambda each: f"{each.source_ratio:.3f}"),
            ),
            (
                "µs of the scheduler for each piece granted",
                bars(lambda each: each.mean, lambda each: f"{each.mean:.0f}, P99 {each.p99:.0f}"),
            ),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
