"""One line to the Hub, shared by the nodes of a site: what may cross it now, and who may take it.

Rates are bytes per second. Nothing here knows a clock: moments come in.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, time
from itertools import groupby
from zoneinfo import ZoneInfo

from router.domain import windows
from router.domain.errors import InvalidArgument

# Of the limit, shared by all nodes alike: what a node has before anybody knows that it wants more.
_RESERVED = 0.02
# A node that takes less than it may is left so much more than it takes; the rest is lent.
_HEADROOM = 1.1
_LEAST_HEADROOM = 0.01  # of its fair share


@dataclass(frozen=True, slots=True)
class TimedRate:
    """A limit from `start` (inclusive) to `end` (exclusive) of every day; 0: no limit.

    An end that is not after the start is meant on the next day. The clock on the wall decides: a
    span that a change to summer time leaves out is shorter that day, one that is gone through twice
    is longer.
    """

    start: time
    end: time
    max_hub_rate: int

    def covers(self, moment: time) -> bool:
        """Whether this time of the day lies in the span."""
        return windows.covers(self.start, self.end, moment)


def timed_rate(start: str, end: str, max_hub_rate: int) -> TimedRate:
    """An entry of a timetable, its times written as HH:MM. Raises `InvalidArgument`."""
    return TimedRate(_time_of_day(start), _time_of_day(end), max_hub_rate)


def _time_of_day(text: str) -> time:
    try:
        if len(text) != len("HH:MM") or text[2] != ":":
            raise ValueError
        return time.fromisoformat(text)
    except ValueError:
        raise InvalidArgument(
            f'"{text[:40]}" is not a time of the day: write HH:MM, 00:00 to 23:59',
            param="timetable",
        ) from None


@dataclass(frozen=True, slots=True)
class Site:
    """Nodes that share one line: those with the same value of the label "site"; "": without it.

    `max_hub_rate` holds (0: no limit) where no entry of the timetable covers the moment; of several
    entries the first counts. `time_zone` is an IANA name; "": the router's own.
    """

    name: str
    max_hub_rate: int = 0
    timetable: tuple[TimedRate, ...] = ()
    time_zone: str = ""

    @property
    def limited(self) -> bool:
        """Whether there is a limit at any time."""
        return bool(self.max_hub_rate or self.timetable)

    def rate_at(self, moment: datetime) -> int:
        """The limit at an aware moment; 0: none. It changes only as a minute begins.

        Raises `ZoneInfoNotFoundError` for a zone that this machine does not know.
        """
        if not self.timetable:
            return self.max_hub_rate
        zone = ZoneInfo(self.time_zone) if self.time_zone else None
        wall = moment.astimezone(zone).time()
        for entry in self.timetable:
            if entry.covers(wall):
                return entry.max_hub_rate
        return self.max_hub_rate


@dataclass(frozen=True, slots=True)
class Claim:
    """What one node wants of a line.

    `transfers` run and may take from the Hub; a node with none wants nothing yet. `priority` is the
    highest among them. `demand` is what the node takes now, or infinite when it is held back.
    `ceiling` is what it may take whatever the line has.
    """

    node_id: str
    transfers: int = 0
    priority: int = 0
    demand: float = math.inf
    ceiling: float = math.inf


def fair_shares(limit: int, claims: Iterable[Claim]) -> dict[str, int]:
    """Divides `limit` (over 0) among nodes; at least 1 each, together never more than the limit.

    - Every node has the same small share of a reserve, so that one that begins can begin.
    - The rest goes to nodes with transfers: first to those of the highest priority, as much as they
      can take, then to the next. Among equals the shares are max-min fair, by number of transfers:
      what one leaves, the others have.
    - What nobody wants is divided once more, so that a line is never left idle while a node might
      begin to take more.

    The order of the claims plays no part. (With fewer bytes than nodes, each has 1 all the same.)
    """
    known = sorted(claims, key=lambda claim: claim.node_id)
    if not known:
        return {}
    reserve = limit * _RESERVED / len(known)
    given = {claim.node_id: min(reserve, claim.ceiling) for claim in known}
    left = limit - sum(given.values())
    active = [claim for claim in known if claim.transfers]
    whole = sum(claim.transfers for claim in active)
    wanted = {
        claim.node_id: claim.demand * _HEADROOM + _LEAST_HEADROOM * limit * claim.transfers / whole
        for claim in active
    }
    ranks = sorted(active, key=lambda claim: -claim.priority)
    for _, rank in groupby(ranks, key=lambda claim: claim.priority):
        left = _fill(left, list(rank), given, wanted)
    _fill(left, active, given, {claim.node_id: math.inf for claim in active})
    return {node_id: max(1, int(share)) for node_id, share in given.items()}


def _fill(
    left: float, claims: list[Claim], given: dict[str, float], wanted: Mapping[str, float]
) -> float:
    """Raises all claims by the same amount for each transfer, none above what it wants or may.

    Returns what is left.
    """
    rooms = []
    for claim in claims:
        top = min(wanted[claim.node_id], claim.ceiling)
        room = max(0.0, top - given[claim.node_id])
        rooms.append((room / claim.transfers, claim))
    transfers = sum(claim.transfers for claim in claims)
    for room, claim in sorted(rooms, key=lambda one: (one[0], one[1].node_id)):
        share = min(room, left / transfers) * claim.transfers
        given[claim.node_id] += share
        left = max(0.0, left - share)
        transfers -= claim.transfers
    return left


def next_shares(
    limit: int, targets: Mapping[str, int], held: Mapping[str, float]
) -> dict[str, int]:
    """What each node may be told now on the way to its target, so that the limit holds meanwhile.

    `held` is the most that a node may be taking before it has heard of this: infinite when it has
    no limit, absent when it takes nothing. Whoever is to have less is told at once; whoever is to
    have more gets what the others have given up already. At least 1 each.
    """
    free = max(0.0, limit - sum(held.values()))
    raises = {
        node_id: max(0.0, target - held.get(node_id, 0.0)) for node_id, target in targets.items()
    }
    wanted = sum(raises.values())
    part = min(1.0, free / wanted) if wanted else 1.0
    return {
        node_id: max(1, int(min(target, held.get(node_id, 0.0)) + raises[node_id] * part))
        for node_id, target in targets.items()
    }
