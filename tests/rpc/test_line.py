"""Sites and their lines: what operators set, and what agents are told of it."""

from collections.abc import Sequence

import pytest

from protos.llmrouter.v1 import agent_pb2, common_pb2
from protos.llmrouter.v1 import download_pb2 as download
from protos.llmrouter.v1 import node_pb2 as node
from protos.llmrouter.v1 import registration_pb2 as registration
from tests.fakes.agent import FakeAgent
from tests.fakes.running_router import RunningRouter
from tests.rpc.conftest import FILE, NAME, REPO
from tests.rpc.errors import refused
from tests.support import eventually

MB = 10**6


def limit_site(router: RunningRouter, rate: int) -> node.Site:
    """Sets what the agents' site may take."""
    request = node.UpdateSiteRequest(name="a", max_hub_rate_bytes_per_second=rate)
    return router.call.node.UpdateSite(request).site


@pytest.fixture
def site(router: RunningRouter) -> RunningRouter:
    """A router without limits that knows a model."""
    router.call.registration.RegisterModel(registration.RegisterModelRequest(repo=REPO, file=FILE))
    limit_site(router, 0)
    return router


class Fetcher:
    """An agent's side of a download from the Hub that its share holds back."""

    def __init__(self, agent: FakeAgent) -> None:
        self.agent = agent
        self._task = agent.assignment(lambda assignment: assignment.tasks).tasks[0]
        self._taken = 0

    @property
    def share(self) -> int | None:
        """What it was told last; None: no limit."""
        return share_of(self.agent)

    def report(self, *, held_back: bool = True) -> None:
        """More bytes from the Hub, under the share that it was told last."""
        self._taken += 1
        told = agent_pb2.TaskReport(
            task_id=self._task.task_id,
            attempt=self._task.attempt,
            state=common_pb2.TASK_STATE_DOWNLOADING,
            bytes_done=self._taken,
            bytes_from=common_pb2.BytesBySource(hub=self._taken),
        )
        report = agent_pb2.Report(
            tasks=[told], max_hub_rate_bytes_per_second=self.share, held_back=held_back
        )
        self.agent.say(agent_pb2.ConnectRequest(report=report))


def share_of(agent: FakeAgent) -> int | None:
    """The last share that an agent heard of; None: it has no limit."""
    told = [command.line_share for command in agent.commands if command.HasField("line_share")]
    if not told or not told[-1].HasField("max_hub_rate_bytes_per_second"):
        return None
    return told[-1].max_hub_rate_bytes_per_second


def order(router: RunningRouter) -> None:
    """Orders the model onto all nodes."""
    router.call.download.StartDownload(
        download.StartDownloadRequest(model_name=NAME, target=download.ORDER_TARGET_ALL)
    )


def reach(fetchers: Sequence[Fetcher], shares: Sequence[float]) -> None:
    """The agents report until these are their shares."""

    def reached() -> bool:
        for fetcher in fetchers:
            fetcher.report()
        return [fetcher.share or 0 for fetcher in fetchers] == pytest.approx(shares, rel=0.02)

    eventually(reached)


def test_every_agent_is_told_its_share_when_it_comes(site: RunningRouter) -> None:
    with FakeAgent(site.call.agent) as agent:
        command = agent.heard(lambda command: command.HasField("line_share"))

    assert not command.line_share.HasField("max_hub_rate_bytes_per_second")


def test_a_limit_is_told_at_once_and_so_is_its_end(site: RunningRouter) -> None:
    with FakeAgent(site.call.agent) as agent:
        limit_site(site, MB)
        agent.heard(lambda c: c.line_share.max_hub_rate_bytes_per_second > 0)
        limit_site(site, 0)

        eventually(lambda: share_of(agent) is None)


def test_agents_that_fetch_have_shares_that_follow_who_fetches(site: RunningRouter) -> None:
    limit_site(site, 10 * MB)
    with FakeAgent(site.call.agent, "node-1") as one, FakeAgent(site.call.agent, "node-2") as two:
        order(site)
        first, second = Fetcher(one), Fetcher(two)
        reach([first], [10 * MB])
        reach([first, second], [5 * MB, 5 * MB])
        told = [
            command.line_share.max_hub_rate_bytes_per_second
            for command in one.commands
            if command.HasField("line_share")
        ]

    assert max(told) <= 10 * MB
    assert told[-1] < max(told)


def test_a_nodes_own_limits_are_told_and_shown(site: RunningRouter) -> None:
    with FakeAgent(site.call.agent) as agent:
        shown = site.call.node.UpdateNode(
            node.UpdateNodeRequest(
                node_id="node-1",
                max_hub_rate_bytes_per_second=3 * MB,
                max_upload_rate_bytes_per_second=2 * MB,
            )
        ).node
        agent.heard(lambda c: c.line_share.max_hub_rate_bytes_per_second == 3 * MB)
        assignment = agent.assignment(lambda a: a.HasField("max_upload_rate_bytes_per_second"))

    assert assignment.max_upload_rate_bytes_per_second == 2 * MB
    assert not assignment.HasField("max_rate_bytes_per_second")
    assert shown.max_hub_rate_bytes_per_second == 3 * MB
    assert shown.max_upload_rate_bytes_per_second == 2 * MB


def test_sites_are_listed_with_what_was_set_and_what_counts(site: RunningRouter) -> None:
    entry = node.TimedRate(start="00:00", end="00:00", max_hub_rate_bytes_per_second=MB)
    with FakeAgent(site.call.agent):
        changed = site.call.node.UpdateSite(
            node.UpdateSiteRequest(
                name="a",
                max_hub_rate_bytes_per_second=5,
                timetable=[entry],
                set_timetable=True,
                time_zone="Europe/Berlin",
            )
        ).site
        kept = limit_site(site, 7)
        listed = site.call.node.ListSites(node.ListSitesRequest()).sites
        cleared = site.call.node.UpdateSite(
            node.UpdateSiteRequest(name="a", set_timetable=True, time_zone="")
        ).site

    assert changed.present_max_hub_rate_bytes_per_second == MB
    assert list(listed) == [kept]
    assert (list(kept.timetable), kept.time_zone) == ([entry], "Europe/Berlin")
    assert (kept.nodes, kept.online_nodes) == (1, 1)
    assert (list(cleared.timetable), cleared.time_zone) == ([], "")
    assert cleared.present_max_hub_rate_bytes_per_second == 7


@pytest.mark.parametrize(
    "request_",
    [
        node.UpdateSiteRequest(name="a/b"),
        node.UpdateSiteRequest(name="a", max_hub_rate_bytes_per_second=-1),
        node.UpdateSiteRequest(name="a", time_zone="Mars/Olympus"),
        node.UpdateSiteRequest(
            name="a", set_timetable=True, timetable=[node.TimedRate(start="24:00", end="06:00")]
        ),
    ],
)
def test_what_makes_no_sense_is_refused(
    router: RunningRouter, request_: node.UpdateSiteRequest
) -> None:
    assert refused(router.call.node.UpdateSite, request_).code == "INVALID_ARGUMENT"
