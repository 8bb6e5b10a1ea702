"""A fleet with troublesome nodes among them: real processes, and one that serves as nodes break."""

import pytest

from tests.e2e.site import Site
from tests.e2e.test_swarm import (
    FILE,
    PIECE,
    SIZE,
    assert_right,
    order,
    start,
    wait_until_completed,
)


@pytest.mark.timeout(60)
def test_a_node_that_serves_nothing_still_takes_from_others(site: Site) -> None:
    start(site, "atlas", line="30MB")
    site.start_agent("boreas", "--no-peers")
    site.wait_for_node("boreas")

    tasks = wait_until_completed(site, order(site, "atlas", "boreas"))

    assert_right(site, "atlas", "boreas")
    assert tasks[1]["bytes_from"]["peers"] >= SIZE - 2 * PIECE
    assert site.bytes_served(FILE) <= tasks[0]["bytes_total"] + 2 * PIECE
