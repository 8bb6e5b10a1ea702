"""A fleet with troublesome nodes among them: real processes, and one that serves as nodes break."""

import os
import signal
from typing import Any

import pytest
from blake3 import blake3

from protos import pieces
from tests.e2e.site import Site
from tests.e2e.test_swarm import (
    FILE,
    PIECE,
    REPO,
    SIZE,
    assert_right,
    order,
    start,
    wait_until_completed,
)
from tests.fakes import evil_node
from tests.fakes.evil_node import EvilNode, Manner
from tests.support import eventually

HONEST = ("atlas", "boreas")
IN_PROPORTION = 30.0  # seconds for what takes about 2 without trouble


def content_of(site: Site) -> bytes:
    """The file."""
    return (site.catalog / REPO / FILE).read_bytes()


def completed_beside(site: Site, evil: EvilNode) -> list[Any]:
    """The tasks of two honest nodes, beside one that says it holds the whole file."""
    site.wait_for_node(evil.node_id)
    evil.claim()
    return wait_until_completed(site, order(site, *HONEST), within_seconds=IN_PROPORTION)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "manner",
    [
        evil_node.with_a_flipped_bit,
        evil_node.cut_short,
        evil_node.stalling,
        evil_node.trickling,
        evil_node.compressed,
    ],
    ids=lambda manner: manner.__name__,
)
def test_a_node_that_serves_badly_is_named_and_costs_little(site: Site, manner: Manner) -> None:
    start(site, *HONEST, line="40MB")
    with EvilNode(site.grpc, "evil", content_of(site), manner) as evil:
        tasks = completed_beside(site, evil)

        assert_right(site, *HONEST)
        assert "node_id=evil" in site.router.log.read_text()
        assert evil.sent <= evil.requests * PIECE
        assert site.bytes_served(FILE) <= tasks[0]["bytes_total"] + 2 * PIECE
        assert all(sum(task["bytes_from"].values()) == task["bytes_done"] for task in tasks)


@pytest.mark.timeout(60)
def test_garbage_that_is_vouched_for_is_found_out_in_the_end(site: Site) -> None:
    start(site, *HONEST, line="40MB")
    content = content_of(site)
    spans = [pieces.piece_span(n, len(content)) for n in range(pieces.piece_count(len(content)))]
    lies = {n: blake3(bytes(end - start)).digest() for n, (start, end) in enumerate(spans)}
    with EvilNode(site.grpc, "evil", content, evil_node.another_file, lies=lies) as evil:
        tasks = completed_beside(site, evil)

    assert_right(site, *HONEST)
    assert all(task["bytes_from"]["peers"] == 0 for task in tasks)


@pytest.mark.timeout(60)
def test_a_node_that_freezes_holds_up_nobody(site: Site) -> None:
    start(site, *HONEST, line="12MB")
    frozen = site.start_agent("castor")
    site.wait_for_node("castor")
    tasks = order(site, *HONEST, "castor")
    eventually(lambda: site.task(tasks[2])["bytes_done"] > SIZE / 4)

    os.kill(frozen.pid, signal.SIGSTOP)
    try:
        wait_until_completed(site, tasks[:2], within_seconds=16)  # a silent router: 20
    finally:
        os.kill(frozen.pid, signal.SIGCONT)

    wait_until_completed(site, tasks)
    assert_right(site, *HONEST, "castor")


@pytest.mark.timeout(60)
def test_a_node_that_serves_nothing_still_takes_from_others(site: Site) -> None:
    start(site, "atlas", line="30MB")
    site.start_agent("boreas", "--no-peers")
    site.wait_for_node("boreas")

    tasks = wait_until_completed(site, order(site, "atlas", "boreas"))

    assert_right(site, "atlas", "boreas")
    assert tasks[1]["bytes_from"]["peers"] >= SIZE - 2 * PIECE
    assert site.bytes_served(FILE) <= tasks[0]["bytes_total"] + 2 * PIECE
