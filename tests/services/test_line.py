"""One line for the nodes of a site: shares that follow demand, and a limit that always holds."""

import pytest

from router.domain.errors import InvalidArgument
from router.domain.line import Site, timed_rate
from router.domain.orders import OrderTarget
from router.domain.tasks import Bytes, Progress, TaskReport, TaskState
from router.services.line import Share
from router.services.sessions import Report, Session
from router.services.sites import SiteView
from tests.services.world import GB, LEASE_SECONDS, World

MB = 10**6
LIMIT = 20 * MB


class Fetcher:
    """A node that fetches one model from the Hub, as fast as it is told."""

    def __init__(self, world: World, node_id: str, *, speed: int = GB) -> None:
        self.world = world
        self.node_id = node_id
        self.speed = speed
        self.session: Session = world.connect(node_id)
        self.task_id = ""
        self.follows: int | None = None
        self.hub_bytes = 0

    @property
    def share(self) -> int:
        """What it was told last; an unlimited one fails the test."""
        told = self.world.line.share(self.node_id)
        assert told is not None
        assert told.max_hub_rate is not None
        return told.max_hub_rate

    def begin(self, priority: int = 0) -> None:
        """A task of the node begins."""
        order = self.world.orders.start(
            "o/r:Q4_K_M",
            OrderTarget.SPECIFIC,
            [self.node_id],
            priority=priority,
        )
        self.task_id = order.order.task_ids[0]
        self.say()

    def fetch(self, seconds: float = 0.5) -> None:
        """Takes what it may for so long, then reports."""
        may = self.speed if self.follows is None else min(self.speed, self.follows)
        self.hub_bytes += int(may * seconds)
        self.say(held_back=self.follows is not None and self.follows < self.speed)

    def say(self, *, held_back: bool = False, state: TaskState = TaskState.DOWNLOADING) -> None:
        """Reports, following what it was told."""
        told = self.world.line.share(self.node_id)
        self.follows = None if told is None else told.max_hub_rate
        progress = Progress(bytes_from=Bytes(hub=self.hub_bytes))
        tasks = (TaskReport(self.task_id, 1, state, progress, None),) if self.task_id else ()
        report = Report(tasks, GB, GB, (), max_hub_rate=self.follows, held_back=held_back)
        self.world.sessions.note_line(self.session, report)


def pass_by(world: World, *fetchers: Fetcher, rounds: int = 12) -> None:
    """Half a second and a report of each, so many times."""
    for _ in range(rounds):
        world.clock.pass_by(0.5)
        for fetcher in fetchers:
            fetcher.fetch()
        settle(world, *fetchers)


def settle(world: World, *fetchers: Fetcher) -> None:
    """Shares are found, told and followed until nothing changes."""
    for _ in range(5):
        world.line.divide()
        for fetcher in fetchers:
            fetcher.say(held_back=fetcher.follows is not None and fetcher.follows < fetcher.speed)


@pytest.fixture
def limited(world: World) -> World:
    """Site "a" may take 20 MB/s."""
    world.register("o/r")
    world.sites.update("a", max_hub_rate=LIMIT)
    return world


def test_a_node_of_a_site_without_a_limit_is_told_that_there_is_none(world: World) -> None:
    world.connect("node-1")

    before = world.line.share("node-1")
    world.line.divide()

    assert before is None
    assert world.line.share("node-1") == Share(None)


def test_nodes_that_fetch_share_the_line_alike(limited: World) -> None:
    nodes = [Fetcher(limited, f"node-{number}") for number in range(4)]
    for node in nodes:
        node.begin()

    pass_by(limited, *nodes)

    assert [node.share for node in nodes] == pytest.approx([LIMIT / 4] * 4, rel=0.01)


def test_a_node_that_begins_is_not_stuck_and_soon_has_its_part(limited: World) -> None:
    first, second = Fetcher(limited, "node-1"), Fetcher(limited, "node-2")
    first.begin()
    pass_by(limited, first)
    before = (first.share, second.share)

    second.begin()
    settle(limited, first, second)

    assert before[0] >= 0.97 * LIMIT
    assert before[1] >= 0.005 * LIMIT
    assert (first.share, second.share) == pytest.approx((LIMIT / 2, LIMIT / 2), rel=0.01)


def test_what_a_slow_node_does_not_use_is_lent_and_comes_back_when_it_can_use_it(
    limited: World,
) -> None:
    slow, quick = Fetcher(limited, "node-1", speed=2 * MB), Fetcher(limited, "node-2")
    for node in (slow, quick):
        node.begin()
    pass_by(limited, slow, quick)
    lent = quick.share

    slow.speed = GB
    pass_by(limited, slow, quick, rounds=2)

    assert lent >= 0.85 * LIMIT
    assert slow.share == pytest.approx(LIMIT / 2, rel=0.01)


def test_the_limit_holds_at_every_moment_whatever_changes(limited: World) -> None:
    """Each node obeys only what it was told a round ago."""
    nodes = [Fetcher(limited, f"node-{number}", speed=number * 3 * MB) for number in range(1, 5)]
    first, *others = nodes
    first.begin()
    pass_by(limited, first)
    obeyed = {node.node_id: node.share for node in nodes}

    for round_ in range(12):
        if round_ % 3 == 0 and others:
            others.pop().begin()
        limited.clock.pass_by(0.1)
        limited.line.divide()
        told = {node.node_id: node.share for node in nodes}
        assert sum(max(obeyed[one], told[one]) for one in told) <= LIMIT + len(nodes)
        for node in nodes:
            node.say(held_back=True)
        obeyed = told


def test_a_lower_limit_is_told_at_once_and_a_lifted_one_too(limited: World) -> None:
    nodes = [Fetcher(limited, f"node-{number}") for number in range(2)]
    for node in nodes:
        node.begin()
    pass_by(limited, *nodes)

    limited.sites.update("a", max_hub_rate=10 * MB)
    limited.line.divide()
    lower = [node.share for node in nodes]
    limited.sites.update("a", max_hub_rate=0)
    limited.line.divide()

    assert lower == pytest.approx([5 * MB, 5 * MB], rel=0.01)
    assert [limited.line.share(node.node_id) for node in nodes] == [Share(None)] * 2


def test_a_nodes_own_limit_holds_and_the_others_take_the_rest(limited: World) -> None:
    nodes = [Fetcher(limited, f"node-{number}") for number in range(3)]
    for node in nodes:
        node.begin()
    pass_by(limited, *nodes)

    limited.nodes.update("node-0", max_hub_rate=2 * MB)
    settle(limited, *nodes)

    assert [node.share for node in nodes] == pytest.approx([2 * MB, 9 * MB, 9 * MB], rel=0.01)


def test_a_nodes_own_limit_holds_without_one_of_its_site(world: World) -> None:
    world.connect("node-1")
    world.nodes.update("node-1", max_hub_rate=3 * MB)

    world.line.divide()

    assert world.line.share("node-1") == Share(3 * MB)


def test_an_order_of_higher_priority_has_the_line_first(limited: World) -> None:
    usual, urgent = Fetcher(limited, "node-1"), Fetcher(limited, "node-2")
    usual.begin()
    urgent.begin(priority=5)

    pass_by(limited, usual, urgent)

    assert urgent.share >= 0.95 * LIMIT
    assert usual.share >= 0.005 * LIMIT


def test_a_node_that_takes_only_from_other_nodes_leaves_the_line_to_the_rest(
    limited: World,
) -> None:
    swarming, fetching = Fetcher(limited, "node-1", speed=0), Fetcher(limited, "node-2")
    for node in (swarming, fetching):
        node.begin()

    pass_by(limited, swarming, fetching)

    assert fetching.share >= 0.95 * LIMIT


def test_a_node_that_went_away_keeps_its_share_for_a_lease(limited: World) -> None:
    gone, here = Fetcher(limited, "node-1"), Fetcher(limited, "node-2")
    for node in (gone, here):
        node.begin()
    pass_by(limited, gone, here)

    limited.sessions.close(gone.session)
    pass_by(limited, here)
    meanwhile = here.share
    limited.clock.pass_by(LEASE_SECONDS)
    pass_by(limited, here)

    assert meanwhile == pytest.approx(LIMIT / 2, rel=0.01)
    assert here.share >= 0.99 * LIMIT


def test_a_node_that_went_before_it_heard_of_a_smaller_share_keeps_the_larger(
    limited: World,
) -> None:
    gone, here = Fetcher(limited, "node-1"), Fetcher(limited, "node-2")
    gone.begin()
    pass_by(limited, gone)

    here.begin()
    limited.line.divide()
    limited.sessions.close(gone.session)
    pass_by(limited, here, rounds=20)
    meanwhile = here.share
    limited.clock.pass_by(LEASE_SECONDS)
    pass_by(limited, here)

    assert meanwhile <= 0.03 * LIMIT
    assert here.share >= 0.99 * LIMIT


def test_after_a_restart_those_that_fetched_before_keep_their_part_for_a_lease(
    limited: World,
) -> None:
    nodes = [Fetcher(limited, f"node-{number}") for number in range(2)]
    for node in nodes:
        node.begin()
        limited.report(node.session, node.task_id, TaskState.DOWNLOADING)

    limited.restart()
    back = Fetcher(limited, "node-0")
    back.task_id = nodes[0].task_id
    pass_by(limited, back)
    meanwhile = back.share
    limited.clock.pass_by(LEASE_SECONDS)
    pass_by(limited, back)

    assert meanwhile == pytest.approx(LIMIT / 2, rel=0.01)
    assert back.share >= 0.99 * LIMIT


def test_a_node_that_does_not_say_that_it_obeys_is_believed_in_the_end(limited: World) -> None:
    mute, other = Fetcher(limited, "node-1"), Fetcher(limited, "node-2")
    mute.begin()
    pass_by(limited, mute)

    other.begin()
    limited.line.divide()
    other.say(held_back=True)
    limited.line.divide()
    before = other.share
    limited.clock.pass_by(6)
    other.say(held_back=True)
    limited.line.divide()

    assert before <= 0.02 * LIMIT
    assert other.share >= 0.4 * LIMIT


def test_a_timetable_changes_the_limit_as_the_minute_begins(limited: World) -> None:
    night = timed_rate("22:00", "06:00", 5 * MB)
    limited.sites.update("a", timetable=(night,), time_zone="UTC")
    limited.connect("node-1")
    limited.clock.pass_by(6 * 3600 - 20)

    due = limited.line.divide()
    before = limited.sites.all()[0].present_max_hub_rate
    limited.clock.pass_by(20)

    assert due == 20
    assert (before, limited.sites.all()[0].present_max_hub_rate) == (5 * MB, LIMIT)


def test_nothing_is_due_by_itself_where_nothing_is_limited(world: World) -> None:
    world.connect("node-1")

    assert world.line.divide() is None


def test_a_label_moves_a_node_to_another_line(limited: World) -> None:
    node = Fetcher(limited, "node-1")
    node.begin()
    pass_by(limited, node)

    limited.nodes.update("node-1", labels={"site": "b"})
    limited.line.divide()

    assert limited.line.share("node-1") == Share(None)


def test_sites_are_those_of_nodes_and_those_with_limits(limited: World) -> None:
    fetcher = Fetcher(limited, "node-1")
    fetcher.begin()
    limited.connect("node-2")
    limited.nodes.update("node-2", labels={"site": "b"})
    limited.sessions.close(limited.connect("node-3"))
    pass_by(limited, fetcher)

    a, b = limited.sites.all()

    assert a.site == Site("a", LIMIT)
    assert (a.nodes, a.online_nodes, a.present_max_hub_rate) == (2, 1, LIMIT)
    assert a.hub_rate == pytest.approx(LIMIT, rel=0.05)
    assert b == SiteView(Site("b"), 0, 0, 1, 1)


def test_what_was_set_survives_a_restart_and_what_is_left_out_stays(limited: World) -> None:
    night = timed_rate("22:00", "06:00", 0)
    limited.sites.update("a", timetable=(night,), time_zone="Europe/Berlin")
    limited.sites.update("a", max_hub_rate=7)

    limited.restart()

    assert [view.site for view in limited.sites.all()] == [Site("a", 7, (night,), "Europe/Berlin")]


@pytest.mark.parametrize(
    "changes",
    [
        {"max_hub_rate": -1},
        {"timetable": (timed_rate("00:00", "01:00", -1),)},
        {"time_zone": "Mars/Olympus"},
        {"time_zone": "../../etc/passwd"},
    ],
)
def test_what_makes_no_sense_is_refused(world: World, changes: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        world.sites.update("a", **changes)  # type: ignore[arg-type]


def test_a_site_that_no_label_can_name_is_refused(world: World) -> None:
    with pytest.raises(InvalidArgument):
        world.sites.update("a/b", max_hub_rate=1)
