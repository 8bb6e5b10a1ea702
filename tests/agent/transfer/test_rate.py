"""What limits bytes: all of them, and those of the Hub alone."""

import threading
from collections.abc import Callable

import pytest

from agent.store import Origin
from agent.store.partial import Partial
from agent.transfer import RateLimit, SourceUrl
from agent.transfer.blob import BlobDownload
from agent.transfer.http import HttpClient
from agent.transfer.http_source import HttpSource
from agent.transfer.pieces import InOrder
from tests.agent.transfer.conftest import QUICK, Running, Scene, SilentLog
from tests.support import eventually


class Seconds:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The present moment."""
        return self.now


def owes(limit: RateLimit) -> bool:
    """Whether a take would wait: one that is let go at once is asked whether to."""
    asked = []

    def stopped() -> bool:
        asked.append(True)
        return True

    limit.take(0, stopped)
    return bool(asked)


def download(scene: Scene, origin: Origin, *, rate: RateLimit, hub_rate: RateLimit) -> BlobDownload:
    """The scene's file, from a source of that kind."""
    size = scene.manifest.files[0].size_bytes
    partial = Partial(scene.folder / "model.part", size, "m")
    client = HttpClient(QUICK.proxies, QUICK.tls, QUICK.connect_seconds)
    url = SourceUrl(scene.source.url)
    source = HttpSource(client, lambda: url, size=size, sha256=None, origin=origin)
    schedule = InOrder(source, partial.missing(), size, QUICK.piece_bytes, QUICK.connections)
    return BlobDownload(
        partial, schedule, QUICK, rate, SilentLog(), hub_rate=hub_rate, verify=False
    )


@pytest.mark.parametrize("origin", [Origin.PEER, Origin.ROUTER])
def test_what_comes_from_elsewhere_does_not_use_the_line(scene: Scene, origin: Origin) -> None:
    blob = download(scene, origin, rate=RateLimit(), hub_rate=RateLimit(1))

    running = threading.Thread(target=blob.run, daemon=True)
    running.start()
    running.join(20)

    assert blob.received().total == scene.manifest.files[0].size_bytes


@pytest.mark.parametrize(
    "limits",
    [
        lambda narrow: {"rate": RateLimit(), "hub_rate": narrow},
        lambda narrow: {"rate": narrow, "hub_rate": RateLimit()},
    ],
    ids=["the line's share", "the node's limit"],
)
def test_what_comes_from_the_hub_obeys_both_limits(
    scene: Scene, limits: Callable[[RateLimit], dict[str, RateLimit]]
) -> None:
    narrow = RateLimit(1)
    blob = download(scene, Origin.HUB, **limits(narrow))
    running = threading.Thread(target=blob.run)
    running.start()
    eventually(narrow.held_back)
    meanwhile = blob.received().total

    narrow.change(None)
    running.join(20)

    assert meanwhile < scene.manifest.files[0].size_bytes
    assert blob.received().total == scene.manifest.files[0].size_bytes


def test_a_model_from_the_hub_waits_for_the_nodes_share(scene: Scene) -> None:
    scene.hub_rate.change(1)
    running = Running(scene.transfer())
    eventually(scene.hub_rate.held_back)
    meanwhile = running.transfer.progress()

    scene.hub_rate.change(None)

    assert running.wait() is None
    assert meanwhile.received_bytes < meanwhile.total_bytes
    scene.assert_whole()


def test_what_was_taken_too_much_stays_owed_when_the_ceiling_changes() -> None:
    clock = Seconds()
    limit = RateLimit(100, clock)
    limit.take(1000, lambda: True)  # 10 s worth

    limit.change(50)
    clock.now += 19.0
    owing = owes(limit)
    clock.now += 1.0

    assert owing
    assert not owes(limit)


def test_a_ceiling_lets_through_what_it_says_however_often_it_changes() -> None:
    clock = Seconds()
    limit = RateLimit(100, clock)
    taken = 0
    for step in range(1000):
        clock.now += 0.1
        limit.change(100 if step % 2 else 101)
        if not owes(limit):
            limit.take(64, lambda: True)
            taken += 64

    assert taken == pytest.approx(100 * clock.now, rel=0.02)


def test_reads_under_a_ceiling_are_small_and_large_without_one() -> None:
    assert RateLimit().read_bytes is None
    assert RateLimit(1).read_bytes == 16 << 10
    assert RateLimit(10_000_000).read_bytes == 200_000


def test_a_limit_holds_nobody_back_who_takes_less() -> None:
    clock = Seconds()
    limit = RateLimit(1000, clock)
    for _ in range(20):
        clock.now += 0.1
        limit.take(50, lambda: False)

    assert not limit.held_back()
