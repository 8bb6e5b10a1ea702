"""`llm-router site`: what it sends and shows."""

import json
from datetime import time

import pytest

from cli.render import sites
from protos.llmrouter.v1 import node_pb2
from router.domain.line import Site, TimedRate
from router.rest.shapes.sites import SiteShape
from router.rpc import convert_sites
from router.services.sites import SiteView
from tests.cli.conftest import Cli
from tests.cli.fake_router import FakeRouter

VIEW = SiteView(
    Site("berlin", 5_000_000, (TimedRate(time(22), time(6), 0),), "Europe/Berlin"),
    present_max_hub_rate=5_000_000,
    hub_rate=4_900_000,
    nodes=3,
    online_nodes=2,
)
SITE = convert_sites.site(VIEW)


def test_sites_are_listed_as_a_table_as_names_and_as_json(router: FakeRouter, cli: Cli) -> None:
    router.answers["ListSites"] = node_pb2.ListSitesResponse(sites=[node_pb2.Site(), SITE])

    table = cli("site", "list").output
    names = cli("site", "list", "-q").output
    answer = json.loads(cli("site", "list", "--format", "json").output)

    for text in ("berlin", "2/3", "4.9 MB/s", "5.0 MB/s", "22:00-06:00 no limit"):
        assert text in table
    assert names == "-\nberlin\n"
    assert answer["sites"][1] == sites.site(SITE)


def test_a_site_is_the_same_object_as_over_http() -> None:
    assert sites.site(SITE) == json.loads(SiteShape.of(VIEW).model_dump_json())


@pytest.mark.parametrize(
    ("arguments", "request_"),
    [
        (
            (
                "berlin", "--max-hub-rate", "5MB", "--timetable", "22:00-06:00=0",
                "--timetable", "12:00 - 13:00 = 1.5MB/s", "--time-zone", "Europe/Berlin",
            ),
            node_pb2.UpdateSiteRequest(
                name="berlin",
                max_hub_rate_bytes_per_second=5_000_000,
                timetable=[
                    node_pb2.TimedRate(start="22:00", end="06:00"),
                    node_pb2.TimedRate(
                        start="12:00", end="13:00", max_hub_rate_bytes_per_second=1_500_000
                    ),
                ],
                set_timetable=True,
                time_zone="Europe/Berlin",
            ),
        ),
        (
            ("-", "--max-hub-rate", "0"),
            node_pb2.UpdateSiteRequest(name="", max_hub_rate_bytes_per_second=0),
        ),
        (
            ("berlin", "--no-timetable", "--time-zone", ""),
            node_pb2.UpdateSiteRequest(name="berlin", set_timetable=True, time_zone=""),
        ),
    ],
)  # fmt: skip
def test_what_is_set_is_sent_and_the_rest_stays(
    router: FakeRouter,
    cli: Cli,
    arguments: tuple[str, ...],
    request_: node_pb2.UpdateSiteRequest,
) -> None:
    router.answers["UpdateSite"] = node_pb2.UpdateSiteResponse(site=SITE)

    result = cli("site", "set", *arguments)

    assert result.exit_code == 0
    assert router.requests[-1] == request_
    assert "2 online of 3" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("berlin",),
        ("not a label", "--max-hub-rate", "1"),
        ("", "--max-hub-rate", "1"),
        ("berlin", "--timetable", "22-6=0"),
        ("berlin", "--timetable", "22:00-06:00"),
        ("berlin", "--timetable", "22:00-06:00=much"),
        ("berlin", "--timetable", "22:00-06:00=0", "--no-timetable"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    router: FakeRouter, cli: Cli, arguments: tuple[str, ...]
) -> None:
    result = cli("site", "set", *arguments)

    assert result.exit_code == 2
    assert router.requests == []


def test_a_nodes_own_limits_are_sent(router: FakeRouter, cli: Cli) -> None:
    router.answers["UpdateNode"] = node_pb2.UpdateNodeResponse(
        node=node_pb2.Node(node_id="id-1", max_hub_rate_bytes_per_second=2_000_000, site="berlin")
    )

    result = cli("node", "set", "n", "--max-hub-rate", "2MB", "--max-upload-rate", "0")

    assert router.requests[-1] == node_pb2.UpdateNodeRequest(
        node_id="n", max_hub_rate_bytes_per_second=2_000_000, max_upload_rate_bytes_per_second=0
    )
    assert "at most 2.0 MB/s" in result.output
