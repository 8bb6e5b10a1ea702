"""What is known of nodes as holders of pieces, over all files."""

import heapq
from math import log2
from random import Random
from typing import Protocol

from router.domain.swarm.values import Settings, any_bit

_LEVELS = 64
# Two levels for each doubling of the span that a byte takes, counted from 10 GB/s.
_FASTEST = 1e10
# Of one transfer in the usual speed, after the first ones.
_WEIGHT = 0.02


class Listener(Protocol):
    """A swarm, told of what other swarms' transfers change for it."""

    def holder_free(self, slot: int) -> None:
        """The holder can send again."""

    def holder_full(self, slot: int) -> None:
        """The holder sends as much as it may."""

    def pair_open(self, taker: int, holder: int) -> None:
        """The taker may try the holder again."""


class _Node:
    __slots__ = (
        "accused",
        "banned_until",
        "level",
        "name",
        "resting",
        "rests",
        "sends",
        "speed",
        "strikes",
        "swarms",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.sends = 0
        # Bytes per second over all its sends; 0: not measured.
        self.speed = 0.0
        self.level = -1
        self.strikes = 0
        self.rests = 0
        self.resting = False
        self.accused: set[int] = set()
        self.banned_until = 0.0
        self.swarms: list[Listener] = []


class Fleet:
    """Shared by all swarms of a router. Nodes are numbered by slots, sets of them are bits.

    Holders that can send are sorted into levels by when they would be done with one piece more, so
    that the best of a set is found without looking at each.
    """

    def __init__(self, *, random: Random, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.random = random
        self._slots: dict[str, int] = {}
        self._nodes: list[_Node] = []
        self._unused: list[int] = []
        self._levels = [0] * _LEVELS
        self._open_levels = 0
        self._usual = 0.0
        self._measured = 0
        # Holders known to send at less than a quarter of the usual speed, and those that rest.
        self.slow = 0
        self.resting = 0
        # Pairs that are left alone: those a taker may not try, those that may not try a holder.
        self._cut_of_taker: dict[int, int] = {}
        self._cut_of_holder: dict[int, int] = {}
        self._pauses: dict[tuple[int, int], tuple[float, int]] = {}
        self._ends: list[tuple[float, int, int]] = []
        self._stirred: dict[int, Listener] = {}
        self._files = 0

    # Who is who

    def slot(self, node_id: str) -> int:
        """The number of a node, given at the first call."""
        slot = self._slots.get(node_id)
        if slot is None:
            if self._unused:
                slot = self._unused.pop()
                self._nodes[slot] = _Node(node_id)
            else:
                slot = len(self._nodes)
                self._nodes.append(_Node(node_id))
            self._slots[node_id] = slot
            self._sort(slot)
        return slot

    def known(self, node_id: str) -> int | None:
        """The number of a node, None when it has none."""
        return self._slots.get(node_id)

    def name(self, slot: int) -> str:
        """The id of a node."""
        return self._nodes[slot].name

    def forget(self, node_id: str) -> None:
        """A node is gone for good. One that is in a swarm or sends something stays known."""
        slot = self._slots.get(node_id)
        if slot is None or self._nodes[slot].swarms or self._nodes[slot].sends:
            return
        for taker, holder in [pair for pair in self._pauses if slot in pair]:
            self._join_pair(taker, holder)
            del self._pauses[taker, holder]
        self._ends = [end for end in self._ends if slot not in end[1:]]
        heapq.heapify(self._ends)
        self._unsort(slot)
        self.slow &= ~(1 << slot)
        self.resting &= ~(1 << slot)
        del self._slots[node_id]
        self._unused.append(slot)

    def new_file(self) -> int:
        """A number for a swarm."""
        self._files += 1
        return self._files

    def attach(self, slot: int, swarm: Listener) -> None:
        """A swarm has the node as a holder or member."""
        if swarm not in self._nodes[slot].swarms:
            self._nodes[slot].swarms.append(swarm)

    def detach(self, slot: int, swarm: Listener) -> None:
        """A swarm has the node no more."""
        if swarm in self._nodes[slot].swarms:
            self._nodes[slot].swarms.remove(swarm)

    def stirred(self) -> list[Listener]:
        """The swarms whose `decide` may find something new because of another swarm's events."""
        found = list(self._stirred.values())
        self._stirred.clear()
        return found

    def settled(self, swarm: Listener) -> None:
        """A swarm has just decided."""
        self._stirred.pop(id(swarm), None)

    # Sending

    def best(self, holders: int) -> int:
        """Of a set of holders one that would be done first with one piece more; -1: none can."""
        open_levels = self._open_levels
        while open_levels:
            low = open_levels & -open_levels
            fitting = holders & self._levels[low.bit_length() - 1]
            if fitting:
                return any_bit(fitting, self.random)
            open_levels ^= low
        return -1

    def is_free(self, slot: int) -> bool:
        """Whether the holder may send one piece more."""
        return self._nodes[slot].level >= 0

    def sends(self, slot: int) -> int:
        """How many pieces the holder is sending."""
        return self._nodes[slot].sends

    def began(self, slot: int) -> None:
        """The holder is to send a piece."""
        self._nodes[slot].sends += 1
        self._sort(slot)

    def ended(self, slot: int) -> None:
        """The holder has sent a piece, or has not."""
        self._nodes[slot].sends -= 1
        self._sort(slot)

    def span(self, slot: int, size: int) -> float:
        """Seconds that the holder would need for a piece more beside what it is sending."""
        node = self._nodes[slot]
        return (node.sends + 1) * size / (node.speed or self.usual_speed)

    @property
    def usual_speed(self) -> float:
        """Of holders, over all their sends."""
        return self._usual or self.settings.speed

    def sent(self, slot: int, size: int, elapsed: float, beside: float) -> None:
        """A holder has sent `size` bytes in `elapsed` seconds, `beside` pieces at a time."""
        node = self._nodes[slot]
        speed = size * max(beside, 1.0) / max(elapsed, 1e-6)
        if node.speed:
            node.speed += (speed - node.speed) * (0.4 if speed > node.speed else 0.2)
        else:
            node.speed = speed
        self._measured += 1
        self._usual += (speed - self._usual) * max(_WEIGHT, 1 / self._measured)
        node.strikes = node.rests = 0
        self._mark_slow(slot)
        self._sort(slot)

    def crawls(self, slot: int, size: int, elapsed: float) -> None:
        """A holder has not sent `size` bytes in `elapsed` seconds."""
        node = self._nodes[slot]
        speed = size * max(node.sends, 1) / max(elapsed, 1e-6)
        node.speed = min(node.speed or speed, speed)
        self._mark_slow(slot)
        self._sort(slot)

    def _mark_slow(self, slot: int) -> None:
        if self._nodes[slot].speed * 4 < self.usual_speed:
            self.slow |= 1 << slot
        else:
            self.slow &= ~(1 << slot)

    # Pairs and holders that fail

    @property
    def has_cuts(self) -> bool:
        """Whether any pair is left alone."""
        return bool(self._cut_of_taker)

    def cut_of_taker(self, taker: int) -> int:
        """The holders that a taker is not to try now."""
        return self._cut_of_taker.get(taker, 0)

    def cut_of_holder(self, holder: int) -> int:
        """The takers that are not to try a holder now."""
        return self._cut_of_holder.get(holder, 0)

    def cut(self, taker: int, holder: int, pause: float, now: float) -> None:
        """The taker did not get what the holder has: the pair is left alone, longer each time.

        A holder that failed several takers in a row without serving one rests too.
        """
        _, times = self._pauses.get((taker, holder), (0.0, 0))
        until = now + min(pause * 2**times, self.settings.longest_pause)
        self._pauses[taker, holder] = (until, min(times + 1, 20))
        self._cut_of_taker[taker] = self._cut_of_taker.get(taker, 0) | 1 << holder
        self._cut_of_holder[holder] = self._cut_of_holder.get(holder, 0) | 1 << taker
        heapq.heappush(self._ends, (until, taker, holder))
        node = self._nodes[holder]
        node.strikes += 1
        if node.strikes >= self.settings.strikes and not node.resting:
            rest = min(pause * 2**node.rests, self.settings.longest_pause)
            node.rests = min(node.rests + 1, 20)
            node.resting = True
            self.resting |= 1 << holder
            heapq.heappush(self._ends, (now + rest, -1, holder))
            self._sort(holder)

    def reached(self, taker: int, holder: int) -> None:
        """The taker got a piece from the holder: what was held against the pair is forgotten."""
        if (taker, holder) in self._pauses:
            del self._pauses[taker, holder]
            self._join_pair(taker, holder)

    def advance(self, now: float) -> None:
        """Lets pairs and holders try again whose pause is over."""
        while self._ends and self._ends[0][0] <= now:
            until, taker, holder = heapq.heappop(self._ends)
            node = self._nodes[holder]
            if taker < 0:
                node.resting = False
                self.resting &= ~(1 << holder)
                node.strikes = self.settings.strikes - 1
                self._sort(holder)
            elif self._pauses.get((taker, holder), (0.0, 0))[0] == until:
                self._join_pair(taker, holder)
                for swarm in node.swarms:
                    swarm.pair_open(taker, holder)
                    self._stirred[id(swarm)] = swarm

    def wake_at(self) -> float | None:
        """When the next pause ends."""
        return self._ends[0][0] if self._ends else None

    def accuse(self, slot: int, file: int, now: float) -> None:
        """A holder sent wrong bytes, or told a wrong digest, in the swarm numbered `file`."""
        node = self._nodes[slot]
        node.accused.add(file)
        if len(node.accused) >= self.settings.accused_files:
            node.banned_until = now + self.settings.accused_pause
            node.accused.clear()

    def pardon(self, slot: int, file: int) -> None:
        """It was not the holder's fault."""
        self._nodes[slot].accused.discard(file)

    def is_banned(self, slot: int, now: float) -> bool:
        """Whether the holder is a source of no further file for now."""
        return now < self._nodes[slot].banned_until

    def _join_pair(self, taker: int, holder: int) -> None:
        for table, key, other in (
            (self._cut_of_taker, taker, holder),
            (self._cut_of_holder, holder, taker),
        ):
            rest = table.get(key, 0) & ~(1 << other)
            if rest:
                table[key] = rest
            else:
                table.pop(key, None)

    def _unsort(self, slot: int) -> None:
        level = self._nodes[slot].level
        if level >= 0:
            self._levels[level] &= ~(1 << slot)
            if not self._levels[level]:
                self._open_levels &= ~(1 << level)

    def _sort(self, slot: int) -> None:
        """Puts a holder into the level of what it would need for one piece more."""
        node = self._nodes[slot]
        before = node.level
        # A slow one has each piece out sooner when it sends one at a time.
        most = 1 if self.slow >> slot & 1 else self.settings.sends
        if node.sends >= most or node.resting:
            level = -1
        else:
            speed = node.speed or self.usual_speed
            level = int(2 * log2(max((node.sends + 1) * _FASTEST / speed, 1.0)))
            level = min(level, _LEVELS - 1)
        if level == before:
            return
        self._unsort(slot)
        node.level = level
        if level >= 0:
            self._levels[level] |= 1 << slot
            self._open_levels |= 1 << level
        if (level < 0) == (before < 0):
            return
        for swarm in node.swarms:
            if level < 0:
                swarm.holder_full(slot)
            else:
                swarm.holder_free(slot)
                self._stirred[id(swarm)] = swarm
