"""A gated model with real processes: the Hub's token stays on the router."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.demo.models import MIB, make_model
from deploy.demo.processes import Daemon, Daemons
from tests.e2e.site import Site, environment
from tests.fakes.hub import FaultyHub
from tests.support import eventually

MARKER = "hf_markerMarkerMARKERmarker0123456789"
REPO = "tiny-org/tiny-gated-GGUF"
FILE = "tiny-gated-Q8_0.gguf"
NAME = f"hf/{REPO}/{FILE}"


@contextmanager
def gated_site(
    folder: Path, *, signed: bool, router_token: str, agent_token: str = ""
) -> Iterator[tuple[Site, FaultyHub]]:
    """A hub that gives the model to the marker only, a router, and one agent."""
    with Daemons(folder, environment()) as daemons:
        site = Site(folder, daemons)
        make_model(site.catalog / REPO / FILE, size_bytes=MIB)
        with FaultyHub(site.catalog, second_origin=signed) as hub, site.client:
            hub.gate(REPO, MARKER)
            site.hub_url = hub.url
            daemons._environment = environment() | {"HF_TOKEN": router_token}
            site.start_router()
            daemons._environment = environment() | {
                "HF_TOKEN": agent_token,
                "HF_ENDPOINT": hub.url,
            }
            site.start_agent("atlas")
            site.wait_for_node("atlas")
            yield site, hub


def files_with_marker(folder: Path) -> list[Path]:
    """The files below that hold the token."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and MARKER.encode() in path.read_bytes()
    ]


def environment_of(daemon: Daemon) -> bytes:
    """What a process was started with."""
    return Path(f"/proc/{daemon.pid}/environ").read_bytes()


def test_agents_fetch_a_gated_model_and_never_see_the_token(tmp_path: Path) -> None:
    with gated_site(tmp_path, signed=True, router_token=MARKER) as (site, hub):
        agent = site.start_agent("boreas")
        site.wait_for_node("boreas")
        added = site.cli_json("model", "add", REPO)
        site.cli("model", "download", REPO, "--node", "atlas")
        hub.expire_signed_urls()
        site.cli("model", "download", REPO, "--node", "boreas")

        said = [
            site.client.get(path).text
            for path in ("/api/models", "/api/models/available", "/api/tasks", "/metrics")
        ]
        assert any("is gated" in warning for warning in added["warnings"])
        assert site.get(f"/v1/models/{NAME}")["ready_nodes"] == 2
        assert MARKER.encode() not in environment_of(agent)
        assert MARKER.encode() in environment_of(site.router)  # or this test shows nothing
    assert {r.authorization for r in hub.requests if r.origin == "cdn"} == {None}
    assert {r.authorization for r in hub.requests if r.origin == "hub"} == {
        None,  # the agents' first question
        f"Bearer {MARKER}",
    }
    assert all(MARKER not in r.path + r.query for r in hub.requests)
    assert all(MARKER not in text for text in said)
    assert files_with_marker(tmp_path) == []


def test_without_a_token_the_page_where_access_is_asked_for_is_named(tmp_path: Path) -> None:
    with gated_site(tmp_path, signed=True, router_token="") as (site, hub):
        answer = site.client.post("/api/models/register", json={"repo": REPO})
        site.cli("model", "add", REPO, expect=6)

        assert (answer.status_code, answer.json()["error"]["code"]) == (424, "hub_gated")
        assert f"{hub.url}/{REPO}" in answer.json()["error"]["message"]


def test_a_hub_without_signed_addresses_leads_to_a_task_error_that_helps(tmp_path: Path) -> None:
    with gated_site(tmp_path, signed=False, router_token=MARKER) as (site, _):
        site.cli("model", "add", REPO)
        site.cli("model", "download", REPO, "--all", expect=1)

        [task] = site.get("/api/tasks")["tasks"]
        assert task["status"] == "failed"
        assert task["error"]["code"] == "gated"
        assert "HF_TOKEN" in task["error"]["message"]
        assert "this agent" in task["error"]["message"]
        assert not task["error"]["retryable"]
    assert files_with_marker(tmp_path) == []


def test_with_its_own_token_an_agent_needs_no_signed_address(tmp_path: Path) -> None:
    with gated_site(tmp_path, signed=False, router_token=MARKER, agent_token=MARKER) as (site, _):
        site.cli("model", "add", REPO)
        site.cli("model", "download", REPO, "--all")

        eventually(lambda: site.get(f"/v1/models/{NAME}")["ready"])
