"""Who is sent where for a file, and who is told to fetch it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from router.domain.errors import InsufficientDisk, NoNodes
from router.domain.reach import reach
from router.domain.tasks import TaskFailure, TaskState
from router.services.sources import NotBrought, addresses_for
from tests.services.depot import WEIGHTS, Depot, sha256
from tests.services.world import GB

DIGEST = sha256(WEIGHTS)
LOCAL = "127.0.0.1"


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path / "depot")


def authorities(depot: Depot, client: str) -> list[str]:
    """Where a client is sent, the best first."""
    places = depot.sources.holders(DIGEST, client)
    return [place.urls[0].split("/")[2] for place in places]


def test_nodes_that_hold_a_file_take_turns(depot: Depot) -> None:
    for number in range(3):
        depot.hold(f"node-{number}", f"10.0.0.{number + 1}:7000", seen=f"10.0.0.{number + 1}")

    firsts = {authorities(depot, "10.0.0.99")[0] for _ in range(3)}

    assert firsts == {"10.0.0.1:7000", "10.0.0.2:7000", "10.0.0.3:7000"}


def test_a_node_that_does_not_serve_or_does_not_hold_it_is_not_named(depot: Depot) -> None:
    depot.world.take_inventory(depot.connect("mute"), [depot.model().manifest])
    depot.connect("empty", "10.0.0.1:7000", seen="10.0.0.1")

    assert depot.sources.holders(DIGEST, "10.0.0.9") == []


def test_the_nearest_node_comes_first(depot: Depot) -> None:
    depot.hold("far", "192.168.7.1:7000", seen="192.168.7.1")
    depot.hold("near", "10.0.0.1:7000", seen="10.0.0.1")
    depot.hold("itself", "10.0.0.2:7000", seen="10.0.0.2")
    depot.hold("beside", "127.0.0.1:7000", seen="127.0.0.1")

    for _ in range(4):
        assert authorities(depot, "10.0.0.2")[:2] == ["10.0.0.2:7000", "10.0.0.1:7000"]
        assert authorities(depot, "127.0.0.1")[0] == "127.0.0.1:7000"


@pytest.mark.parametrize(
    ("client", "wanted"),
    [
        ("127.0.0.1", ["127.0.0.1:7", "10.0.0.5:7", "[fd00::5]:7"]),
        ("::1", ["[fd00::5]:7", "127.0.0.1:7", "10.0.0.5:7"]),
        ("10.0.0.9", ["10.0.0.5:7", "[fd00::5]:7"]),
        ("fd00::9", ["[fd00::5]:7", "10.0.0.5:7"]),
        ("::ffff:10.0.0.9", ["10.0.0.5:7", "[fd00::5]:7"]),
        ("", ["10.0.0.5:7", "[fd00::5]:7"]),
    ],
)
def test_a_client_elsewhere_is_never_sent_to_its_own_loopback(
    client: str, wanted: list[str]
) -> None:
    node = reach(["10.0.0.5:7", "[fd00::5]:7", "127.0.0.1:7"], "127.0.0.1")

    assert [address for _, address in addresses_for(node, client)] == wanted


def test_a_node_on_loopback_alone_is_for_clients_beside_it(depot: Depot) -> None:
    depot.hold("node-1", "127.0.0.1:7000")

    assert authorities(depot, "10.0.0.2") == []
    assert authorities(depot, "127.0.0.1") == ["127.0.0.1:7000"]


def test_clients_who_ask_at_one_moment_make_one_task(depot: Depot) -> None:
    depot.connect("small", "10.0.0.1:7000", free=GB // 2)
    depot.connect("roomy", "10.0.0.2:7000", free=GB)
    model = depot.model()

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: depot.sources.bring(model), range(16)))

    (task_id,) = found
    assert depot.world.store.task(task_id).node_id == "roomy"  # type: ignore[union-attr]
    assert len(depot.world.store.tasks()) == 1


def test_a_task_of_an_operator_is_taken(depot: Depot) -> None:
    depot.connect("node-1", "10.0.0.1:7000", free=GB // 2)
    depot.connect("roomier", "10.0.0.2:7000", free=GB)
    order = depot.world.order("o/a", "node-1")

    assert depot.sources.bring(depot.model()) == order.tasks[0].task.task_id


def test_one_that_nobody_who_serves_can_finish_is_not(depot: Depot) -> None:
    depot.connect("mute")
    depot.connect("node-2", "10.0.0.2:7000")
    order = depot.world.order("o/a", "mute")

    task_id = depot.sources.bring(depot.model())

    assert task_id != order.tasks[0].task.task_id
    assert depot.world.store.task(task_id).node_id == "node-2"  # type: ignore[union-attr]


def test_after_an_eviction_it_is_brought_once_more(depot: Depot) -> None:
    session = depot.connect("node-1", "10.0.0.1:7000")
    first = depot.sources.bring(depot.model())
    depot.world.complete(session, first)

    assert depot.sources.bring(depot.model()) != first


def test_a_failure_is_told_for_a_while_and_then_tried_again(depot: Depot) -> None:
    session = depot.connect("node-1", "10.0.0.1:7000")
    first = depot.sources.bring(depot.model())
    failure = TaskFailure("gated", "the Hub refuses", retryable=False)
    depot.world.report(session, first, TaskState.FAILED, failure=failure)

    with pytest.raises(NotBrought, match="the Hub refuses") as raised:
        depot.sources.bring(depot.model())

    assert raised.value.retry_after == 60
    depot.world.clock.pass_by(61)
    assert depot.sources.bring(depot.model()) != first


def test_without_a_node_or_without_room_it_says_so(depot: Depot) -> None:
    with pytest.raises(NoNodes, match="llm-router-agent"):
        depot.sources.bring(depot.model())
    depot.connect("full", "10.0.0.1:7000", free=10)
    with pytest.raises(InsufficientDisk, match="has room"):
        depot.sources.bring(depot.model())


def test_a_node_is_named_once_it_has_begun_the_file(depot: Depot) -> None:
    session = depot.connect("node-1", "127.0.0.1:7000", seen="127.0.0.1")
    task_id = depot.sources.bring(depot.model())

    assert depot.sources.arriving(task_id, DIGEST, LOCAL) is None  # ordered
    depot.world.report(session, task_id, TaskState.DOWNLOADING)
    assert depot.sources.arriving(task_id, DIGEST, LOCAL) is None  # another file of it
    depot.reader.put("127.0.0.1:7000", WEIGHTS)
    place = depot.sources.arriving(task_id, DIGEST, LOCAL)
    assert place is not None
    assert place.urls[0].startswith(f"http://127.0.0.1:7000/blobs/{DIGEST}?expires=")
    assert place.urls[0].endswith("&wait=1")


def test_a_task_that_fails_meanwhile_is_told(depot: Depot) -> None:
    session = depot.connect("node-1", "127.0.0.1:7000", seen="127.0.0.1")
    task_id = depot.sources.bring(depot.model())
    failure = TaskFailure("x", "the disk is broken", retryable=False)
    depot.world.report(session, task_id, TaskState.FAILED, failure=failure)

    with pytest.raises(NotBrought, match="the disk is broken"):
        depot.sources.arriving(task_id, DIGEST, LOCAL)
