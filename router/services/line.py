"""Who may take how much of each site's line to the Hub, now. In memory: reports rebuild it."""

import math
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from router.domain.line import Claim, Site, fair_shares, next_shares
from router.domain.nodes import Node
from router.domain.ports import Clock, Store
from router.domain.tasks import TaskReport, TaskState
from router.services.board import Board
from router.services.watch import Topic, Watchers

_EVERY_SECONDS = 0.5  # while something moves
_MEASURED_SECONDS = 2.0
# A transfer that took nothing from the Hub for so long, and was not held back, is no claim: it has
# its bytes from other nodes, or waits for something else.
_STILL_SECONDS = 3.0
# A node that has not said that it follows its share does so after this, or knows no shares.
_OBEYED_SECONDS = 5.0
# A share that changes by less is not told, so that one node's news are not news for all. So much of
# a limit is not given away: shares that ought to be smaller by less stay below it together.
_WORTH_TELLING = 0.005
_STEADY = (0.9, 1.05)  # a demand that changes by less is the one before


@dataclass(frozen=True, slots=True)
class Share:
    """What a node may take from the Hub, in bytes per second; None: no limit."""

    max_hub_rate: int | None


@dataclass(slots=True)
class _Transfer:
    attempt: int
    priority: int
    hub_bytes: int
    moved_at: float


@dataclass(slots=True)
class _Member:
    """A node, as its site's line knows it. Moments are seconds since 1970."""

    site: str
    ceiling: int = 0  # from the Hub, set by an operator; 0: none
    online: bool = False
    share: int | None = None  # None: no limit
    told: bool = False  # whether it was told `share` in this session
    known: bool = False  # whether it obeys `share` or one of `older`, as far as anybody can say
    older: list[tuple[float, float]] = field(default_factory=list)  # (share, until when it counted)
    transfers: dict[str, _Transfer] = field(default_factory=dict)
    held_back: bool = False
    began_at: float = -math.inf
    demand: float = math.inf
    taken: int = 0  # bytes from the Hub
    samples: deque[tuple[float, int]] = field(default_factory=deque)
    reserved_until: float = -math.inf  # while it is away

    def measure(self, now: float) -> None:
        """Notes how many bytes were taken so far."""
        if self.transfers or self.samples:
            self.samples.append((now, self.taken))
        while len(self.samples) > 2 and self.samples[1][0] <= now - _MEASURED_SECONDS:
            self.samples.popleft()
        if not self.transfers and self.samples and self.samples[0][1] == self.taken:
            self.samples.clear()

    def rate(self, now: float) -> float:
        """Bytes per second from the Hub, over the last seconds."""
        if not self.samples or self.samples[-1][0] < now - _STILL_SECONDS:
            return 0.0
        (since, before), (until, after) = self.samples[0], self.samples[-1]
        return (after - before) / (until - since) if until > since else 0.0

    def claim(self, node_id: str, now: float) -> Claim:
        """What it wants of the line."""
        running = [
            transfer
            for transfer in self.transfers.values()
            if self.held_back or not self.online or now - transfer.moved_at < _STILL_SECONDS
        ]
        if self.held_back or now - self.began_at < _EVERY_SECONDS * 2 or not self.online:
            self.demand = math.inf
        else:
            rate = self.rate(now)
            low, high = (self.demand * part for part in _STEADY)
            if not low <= rate <= high or math.isinf(self.demand):
                self.demand = rate
        return Claim(
            node_id,
            transfers=len(running),
            priority=max((transfer.priority for transfer in running), default=0),
            demand=self.demand,
            ceiling=self.ceiling or math.inf,
        )

    def held(self) -> float:
        """The most that it may be taking: until it follows its share, what it was told before."""
        share = math.inf if self.share is None else self.share
        return max([share, *(older for older, _ in self.older)])


class Line:
    """Divides each site's limit among its nodes. Safe from any thread.

    What the nodes of a site may take together is never above its limit, also while shares change:
    nobody's share grows before the others have said that theirs is smaller. A node that went away
    while it fetched may still fetch, and keeps its share for `lease` seconds; so do, after a
    restart of the router, those that fetched before.
    """

    def __init__(
        self, store: Store, board: Board, watchers: Watchers, clock: Clock, *, lease: float
    ) -> None:
        """Knows the nodes and the limits in `store`; tells news of `Topic.LINE` and `SITE`."""
        self._board = board
        self._watchers = watchers
        self._clock = clock
        self._lease = lease
        self._lock = threading.Lock()
        self._sites = {site.name: site for site in store.sites()}
        self._members: dict[str, _Member] = {}
        for node in store.nodes():
            self.know(node)
        now = clock().timestamp()
        for task in store.tasks(states=[TaskState.DOWNLOADING]):
            member = self._members.get(task.node_id)
            if member is not None:
                member.transfers[task.task_id] = _Transfer(task.attempt, task.priority, 0, now)
                member.reserved_until = now + lease

    # What changes

    def know(self, node: Node) -> None:
        """Takes in where a node belongs, and what an operator has set on it."""
        with self._lock:
            member = self._members.setdefault(node.node_id, _Member(node.site))
            before = member.site
            member.site, member.ceiling = node.site, node.max_hub_rate
        for site in {before, node.site}:
            self._watchers.publish(Topic.SITE, site)

    def forget(self, node_id: str) -> None:
        """A node is no longer known."""
        with self._lock:
            member = self._members.pop(node_id, None)
        if member is not None:
            self._watchers.publish(Topic.SITE, member.site)

    def limit(self, site: Site) -> None:
        """Takes in what may cross a site's line from now on."""
        with self._lock:
            self._sites[site.name] = site
        self._watchers.publish(Topic.SITE, site.name)

    def arrive(self, node_id: str) -> None:
        """A node has connected: it is told its share."""
        with self._lock:
            member = self._members.get(node_id)
            if member is None:
                return
            if not member.online and member.reserved_until <= self._clock().timestamp():
                member.known = False
            if not member.known:  # what it is told first is what counts
                member.share = None
                member.older.clear()
            member.online, member.told = True, False
            member.held_back = False
            member.transfers.clear()
        self._watchers.publish(Topic.SITE, member.site)

    def leave(self, node_id: str) -> None:
        """A node's stream has ended."""
        with self._lock:
            member = self._members.get(node_id)
            if member is None:
                return
            member.online = False
            if member.transfers:
                member.reserved_until = self._clock().timestamp() + self._lease
        self._watchers.publish(Topic.SITE, member.site)

    def report(
        self,
        node_id: str,
        tasks: Iterable[TaskReport],
        *,
        follows: int | None,
        held_back: bool,
    ) -> None:
        """Takes in a node's report, in memory alone; never blocks.

        `follows` is the share that it obeys now, None when it has none; `held_back`: it could take
        more.
        """
        now = self._clock().timestamp()
        with self._lock:
            member = self._members.get(node_id)
            if member is None:
                return
            news = self._heed(member, follows)
            running = {task.task_id: task for task in tasks if task.state is TaskState.DOWNLOADING}
            for task_id in member.transfers.keys() - running.keys():
                del member.transfers[task_id]
                news = True
            for task in running.values():
                news |= self._move(member, task, now)
            member.held_back = held_back
            member.measure(now)
            limited = member.site in self._sites
        if news and limited:
            self._watchers.publish(Topic.SITE, member.site)

    # What follows

    def share(self, node_id: str) -> Share | None:
        """What a connected node is to be told; None before that was found out."""
        with self._lock:
            member = self._members.get(node_id)
            return Share(member.share) if member is not None and member.told else None

    def limit_now(self, site: Site) -> int:
        """The limit that counts now; 0: none."""
        return site.rate_at(self._clock())

    def rates(self) -> dict[str, int]:
        """Bytes per second that the connected nodes of each site take from the Hub now."""
        now = self._clock().timestamp()
        rates: dict[str, float] = {}
        with self._lock:
            for member in self._members.values():
                if member.online:
                    rates[member.site] = rates.get(member.site, 0.0) + member.rate(now)
        return {site: round(rate) for site, rate in rates.items()}

    def divide(self) -> float | None:
        """Finds the shares of this moment, and tells the nodes whose share changed.

        Returns the seconds after which it is due again although nothing is told; None: never.
        """
        moment = self._clock()
        now = moment.timestamp()
        changed: list[str] = []
        moving = False
        with self._lock:
            by_site: dict[str, dict[str, _Member]] = {}
            for node_id, member in self._members.items():
                if member.online or member.reserved_until > now:
                    by_site.setdefault(member.site, {})[node_id] = member
            for name, members in by_site.items():
                limit = self._sites.get(name, Site(name)).rate_at(moment)
                shares = self._shares(limit, members, now)
                moving |= bool(limit) and any(
                    member.transfers or member.older or not member.online
                    for member in members.values()
                )
                changed += [
                    node_id
                    for node_id, share in shares.items()
                    if _tell(members[node_id], share, now, coarsely=bool(limit))
                ]
            timed = any(site.timetable for site in self._sites.values())
        for node_id in changed:
            self._watchers.publish(Topic.LINE, node_id)
        if moving:
            return _EVERY_SECONDS
        return 60 - now % 60 if timed else None  # a limit changes as a minute begins

    def _shares(
        self, limit: int, members: Mapping[str, _Member], now: float
    ) -> dict[str, int | None]:
        """What each connected node of one site is to be told."""
        online = {node_id: member for node_id, member in members.items() if member.online}
        if not limit:
            return {node_id: member.ceiling or None for node_id, member in online.items()}
        kept = 0
        claims = []
        for node_id, member in members.items():
            if member.online:
                member.older = [one for one in member.older if one[1] > now - _OBEYED_SECONDS]
            if not member.online and member.known and math.isfinite(member.held()):
                kept += int(member.held())
            else:
                claims.append(member.claim(node_id, now))
        left = max(1, limit - kept)
        targets = fair_shares(max(1, int(left * (1 - _WORTH_TELLING))), claims)
        held: dict[str, float] = {}
        for node_id in targets:
            if node_id not in online:
                held[node_id] = targets[node_id]
            elif online[node_id].known:
                held[node_id] = online[node_id].held()
        told = next_shares(left, {node_id: targets[node_id] for node_id in online}, held)
        return dict(told)

    def _heed(self, member: _Member, follows: int | None) -> bool:
        """Forgets what a node was told before the share that it follows; whether that is news."""
        if not member.older or not member.told or follows != member.share:
            return False
        member.older.clear()
        return True

    def _move(self, member: _Member, task: TaskReport, now: float) -> bool:
        """Takes in one transfer; whether it has begun to take bytes."""
        hub_bytes = task.progress.bytes_from.hub
        known = member.transfers.get(task.task_id)
        if known is None or known.attempt != task.attempt:
            order = self._board.task(task.task_id)
            priority = 0 if order is None else order.priority
            member.transfers[task.task_id] = _Transfer(task.attempt, priority, hub_bytes, now)
            member.began_at = now
            return True
        if hub_bytes > known.hub_bytes:
            still = now - known.moved_at >= _STILL_SECONDS
            member.taken += hub_bytes - known.hub_bytes
            known.hub_bytes, known.moved_at = hub_bytes, now
            return still
        return False


def _tell(member: _Member, share: int | None, now: float, *, coarsely: bool) -> bool:
    """Makes `share` the node's; False when it is the present one, or `coarsely` the same."""
    before = member.share
    if member.told:
        if share == before:
            return False
        if (
            coarsely
            and share is not None
            and before is not None
            and abs(share - before) <= before * _WORTH_TELLING
        ):
            return False
    if member.known and share != before:
        member.older.append((math.inf if before is None else before, now))
    member.share = share
    member.told = member.known = True
    return True
