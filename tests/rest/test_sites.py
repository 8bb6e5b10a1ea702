"""Sites over HTTP."""

import httpx
import pytest

from tests.fakes.agent import FakeAgent
from tests.fakes.running_router import RunningRouter
from tests.rest.conftest import problem

NIGHT = {"start": "22:00", "end": "06:00", "max_hub_rate_bps": 0}


def test_a_site_is_limited_and_shown(router: RunningRouter, http: httpx.Client) -> None:
    limits = {"max_hub_rate_bps": 5_000_000, "timetable": [NIGHT], "time_zone": "Europe/Berlin"}
    with FakeAgent(router.call.agent):
        answer = http.put("/api/sites/a", json=limits)
        kept = http.put("/api/sites/a", json={"max_hub_rate_bps": 7_000_000}).json()
        listed = http.get("/api/sites").json()["sites"]
        cleared = http.put("/api/sites/a", json={"max_hub_rate_bps": 0, "timetable": []}).json()

    assert answer.status_code == 200
    assert kept in listed
    assert kept.items() >= {**limits, "name": "a", "max_hub_rate_bps": 7_000_000}.items()
    assert (kept["nodes"], kept["online_nodes"], kept["hub_bps"]) == (1, 1, 0)
    assert (cleared["timetable"], cleared["present_max_hub_rate_bps"]) == ([], 0)


def test_a_hyphen_is_the_site_of_nodes_without_the_label(http: httpx.Client) -> None:
    changed = http.put("/api/sites/-", json={"max_hub_rate_bps": 9}).json()

    assert (changed["name"], changed["present_max_hub_rate_bps"]) == ("", 9)


def test_a_site_without_nodes_and_limits_is_not_listed(http: httpx.Client) -> None:
    def listed(rate: int) -> bool:
        http.put("/api/sites/once", json={"max_hub_rate_bps": rate})
        return "once" in [site["name"] for site in http.get("/api/sites").json()["sites"]]

    assert (listed(9), listed(0)) == (True, False)


@pytest.mark.parametrize(
    ("site", "body"),
    [
        ("a", {"max_hub_rate_bps": -1}),
        ("a", {"max_hub_rate": 5}),
        ("a", {"timetable": [{**NIGHT, "days": "Mon"}]}),
        ("a", {"time_zone": "Mars/Olympus"}),
        ("a", {"timetable": [{**NIGHT, "start": "9:00"}]}),
        ("a", {"timetable": [{"start": "09:00"}]}),
        ("not a label", {}),
    ],
)
def test_what_makes_no_sense_is_refused(
    http: httpx.Client, site: str, body: dict[str, object]
) -> None:
    answer = http.put(f"/api/sites/{site}", json=body)

    assert answer.status_code == 400
    assert problem(answer)[1]
