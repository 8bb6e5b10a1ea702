"""A fleet fills itself over one line, with real processes."""

from typing import Any

import pytest

from deploy.demo.demo import problems_on_node, wanted_model
from deploy.demo.models import MIB, make_model
from tests.e2e.site import Site, kill
from tests.support import eventually

REPO = "tiny-org/tiny-llama-GGUF"
FILE = "tiny-llama-Q8_0.gguf"
MODEL = f"{REPO}:Q8_0"
SIZE = 64 * MIB
PIECE = 4 * MIB


def start(site: Site, *nodes: str, line: str = "20MB") -> None:
    """A hub behind a line, a router that knows the model, and agents."""
    make_model(site.catalog / REPO / FILE, size_bytes=SIZE)
    site.start_hub("--max-rate", line)
    site.start_router()
    site.cli("model", "add", MODEL)
    for name in nodes:
        site.start_agent(name)
        site.wait_for_node(name)


def order(site: Site, *nodes: str) -> list[str]:
    """Orders the model; the ids of the tasks."""
    wish = {"model_name": MODEL, "target": "specific", "node_ids": nodes}
    answer = site.client.post("/api/models/download", json=wish)
    assert answer.status_code == 202, answer.text
    return list(answer.json()["task_ids"])


def wait_until_completed(site: Site, task_ids: list[str], within_seconds: float = 110) -> list[Any]:
    """The tasks, once all have completed."""
    eventually(
        lambda: all(site.task(task)["status"] == "completed" for task in task_ids),
        within_seconds=within_seconds,
    )
    return [site.task(task) for task in task_ids]


def assert_right(site: Site, *nodes: str) -> None:
    """Every byte of the model on every node is the hub's."""
    model = wanted_model(site.catalog, REPO, "Q8_0")
    for name in nodes:
        assert problems_on_node(site.models_dir(name), model) == {}


@pytest.mark.timeout(180)
def test_a_model_for_three_nodes_crosses_the_line_about_once(site: Site) -> None:
    nodes = ("atlas", "boreas", "castor")
    start(site, *nodes)

    tasks = wait_until_completed(site, order(site, *nodes))

    assert_right(site, *nodes)
    size = tasks[0]["bytes_total"]
    assert site.bytes_served(FILE) <= size + 2 * PIECE
    assert all(task["bytes_from"]["peers"] > 0 for task in tasks)


@pytest.mark.timeout(180)
def test_a_late_node_takes_everything_from_its_peers(site: Site) -> None:
    start(site, "atlas", line="200MB")
    wait_until_completed(site, order(site, "atlas"))
    served = site.bytes_served(FILE)
    site.start_agent("boreas")
    site.wait_for_node("boreas")

    [task] = wait_until_completed(site, order(site, "boreas"))

    assert_right(site, "boreas")
    assert site.bytes_served(FILE) == served
    assert task["bytes_from"] == {"hub": 0, "peers": task["bytes_total"], "router": 0, "disk": 0}


@pytest.mark.timeout(180)
def test_nodes_of_another_site_fetch_their_own_copy(site: Site) -> None:
    start(site, "atlas", line="200MB")
    wait_until_completed(site, order(site, "atlas"))
    site.start_agent("boreas", "--label", "site=far")
    site.wait_for_node("boreas")

    [task] = wait_until_completed(site, order(site, "boreas"))

    assert task["bytes_from"]["peers"] == 0


@pytest.mark.timeout(180)
def test_a_fleet_goes_on_while_the_router_is_away(site: Site) -> None:
    nodes = ("atlas", "boreas")
    start(site, *nodes, line="8MB")
    tasks = order(site, *nodes)
    eventually(lambda: site.task(tasks[0])["bytes_done"] > SIZE / 8, within_seconds=60)

    kill(site.router)
    served = site.bytes_served(FILE)
    eventually(lambda: site.bytes_served(FILE) > served + PIECE, within_seconds=60)
    site.start_router()

    wait_until_completed(site, tasks)
    assert_right(site, *nodes)


@pytest.mark.timeout(180)
def test_a_node_that_dies_on_the_way_holds_up_nobody(site: Site) -> None:
    nodes = ("atlas", "boreas", "castor")
    make_model(site.catalog / REPO / FILE, size_bytes=SIZE)
    site.start_hub("--max-rate", "8MB")
    site.start_router()
    site.cli("model", "add", MODEL)
    agents = {name: site.start_agent(name) for name in nodes}
    for name in nodes:
        site.wait_for_node(name)
    tasks = order(site, *nodes)
    eventually(lambda: site.task(tasks[0])["bytes_done"] > SIZE / 4, within_seconds=60)

    kill(agents["castor"])

    wait_until_completed(site, tasks[:2])
    assert_right(site, "atlas", "boreas")
    assert site.task(tasks[2])["node_online"] is False
