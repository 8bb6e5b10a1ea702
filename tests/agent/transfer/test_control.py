"""Stopping, going on, the rate, and what a transfer says about itself."""

import threading
import time

import pytest

from agent.manifest import ManifestFile
from agent.store import BytesFrom, FileState
from agent.transfer import (
    RateLimit,
    SourceUrl,
    TransferError,
    TransferOptions,
    TransferState,
    TransferStopped,
)
from agent.transfer.width import Width
from tests.agent.transfer.conftest import KIB, MIB, Running, Scene, manifest_of, random_bytes
from tests.fakes.http_source import Answer, Asked, Ending, Rule
from tests.support import eventually


def silent(scene: Scene, after: int = 0) -> Rule:
    """Sends so much of the body, then nothing more."""

    def rule(asked: Asked) -> Answer:
        right = scene.source.right(asked)
        fields = {**right.fields, "Content-Length": str(len(right.body))}
        return Answer(right.status, fields, right.body[:after], Ending.SILENCE)

    return rule


def test_what_is_complete_says_so(scene: Scene) -> None:
    transfer = scene.transfer()

    transfer.run()

    progress = transfer.progress()
    assert progress.received_bytes == progress.total_bytes == 4 * MIB
    assert progress.bytes_from == BytesFrom(hub=4 * MIB)
    assert transfer.digests() == {"model.gguf": scene.manifest.files[0].sha256}


def test_stopping_ends_a_thread_that_waits_for_bytes(scene: Scene) -> None:
    scene.source.rule = silent(scene, after=100 * KIB)
    running = Running(scene.transfer(stall_seconds=600.0))
    eventually(lambda: running.transfer.progress().received_bytes == 400 * KIB)

    running.stop()

    eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("transfer-")])
    partial = scene.store.find(scene.manifest)[0]
    assert (partial.state, partial.partial_bytes) == (FileState.PARTIAL, 400 * KIB)
    scene.assert_nothing_visible()


def test_stopping_ends_a_pause_that_the_source_asked_for(scene: Scene) -> None:
    scene.source.rule = lambda asked: Answer(429, {"Retry-After": "500"})
    running = Running(scene.transfer())
    scene.source.wait_for_requests(1)

    running.stop()


def test_stopping_ends_a_wait_for_the_rate(scene: Scene) -> None:
    scene.rate.change(1)
    running = Running(scene.transfer())
    eventually(lambda: running.transfer.progress().received_bytes > 0)

    running.stop()


def test_stopping_ends_a_wait_for_another_download_of_the_same_content(scene: Scene) -> None:
    claim = scene.store.try_claim(scene.manifest, scene.manifest.files[0])
    assert claim is not None
    running = Running(scene.transfer())
    eventually(lambda: running.transfer.progress().state is TransferState.WAITING)

    running.stop()

    assert scene.source.asked == []
    claim.release()


def test_stopping_before_the_start_fetches_nothing(scene: Scene) -> None:
    transfer = scene.transfer()
    transfer.stop()

    with pytest.raises(TransferStopped):
        transfer.run()

    assert scene.source.asked == []


def test_stopping_without_keeping_frees_the_disk(scene: Scene) -> None:
    scene.source.rule = silent(scene, after=100 * KIB)
    running = Running(scene.transfer(stall_seconds=600.0))
    eventually(lambda: running.transfer.progress().received_bytes == 400 * KIB)

    running.stop(keep_partial=False)

    assert scene.leftovers() == []


def test_going_on_fetches_only_what_is_missing_and_accounts_for_all(scene: Scene) -> None:
    scene.source.rule = silent(scene, after=100 * KIB)
    running = Running(scene.transfer(stall_seconds=600.0))
    eventually(lambda: running.transfer.progress().received_bytes == 400 * KIB)
    running.stop()
    scene.source.rule = lambda asked: None
    scene.source.bytes_served = 0
    transfer = scene.transfer()

    transfer.run()

    scene.assert_whole()
    assert scene.source.bytes_served == 4 * MIB - 400 * KIB
    assert transfer.progress().bytes_from == BytesFrom(hub=4 * MIB)


def test_a_second_order_of_the_same_content_takes_it_from_the_disk(scene: Scene) -> None:
    scene.transfer().run()
    served = scene.source.bytes_served
    scene.manifest = manifest_of(("other.gguf", scene.source.content), repo="p/q")
    transfer = scene.transfer()

    transfer.run()

    assert scene.source.bytes_served == served
    assert transfer.progress().bytes_from == BytesFrom(disk=4 * MIB)
    assert scene.store.holds(scene.manifest)


def test_a_restarted_task_accounts_for_its_finished_files_as_before(scene: Scene) -> None:
    scene.transfer(task_id="t1").run()

    again, other = scene.transfer(task_id="t1"), scene.transfer(task_id="t2")
    again.run()
    other.run()

    assert again.progress().bytes_from == BytesFrom(hub=4 * MIB)
    assert other.progress().bytes_from == BytesFrom(disk=4 * MIB)


def test_two_transfers_of_one_content_fetch_it_once(scene: Scene) -> None:
    scene.rate.change(32 * MIB)
    first, second = Running(scene.transfer()), Running(scene.transfer())

    assert (first.wait(), second.wait()) == (None, None)

    assert scene.source.bytes_served == 4 * MIB
    scene.assert_whole()


def test_several_files_and_empty_ones_all_arrive(scene: Scene) -> None:
    files = {f"part/{n}.gguf": random_bytes(n * 1000, n) for n in range(5)}
    scene.manifest = manifest_of(*files.items())

    def rule(asked: Asked) -> Answer:
        content = files[asked.target.removeprefix("/")]
        end = min(asked.end, len(content))
        place = f"bytes {asked.start}-{end - 1}/{len(content)}"
        return Answer(206, {"Content-Range": place}, content[asked.start : end])

    # The server's idea of a range is bounded by its own content, which is larger.
    scene.source.rule = rule
    base = scene.source.url.rpartition("/")[0]
    scene.resolve = lambda file: SourceUrl(f"{base}/{file.path}")

    transfer = scene.transfer()
    transfer.run()

    for path, content in files.items():
        assert (scene.final.parent.parent / path).read_bytes() == content
    assert transfer.progress().received_bytes == sum(len(c) for c in files.values())


def test_a_file_without_a_digest_gets_one_and_is_believed_afterwards(scene: Scene) -> None:
    scene.manifest = manifest_of(("config.json", scene.source.content), digests=False)
    transfer = scene.transfer()

    transfer.run()

    known = manifest_of(("config.json", scene.source.content)).files[0].sha256
    assert transfer.digests() == {"config.json": known}
    assert scene.store.holds(scene.manifest)


def test_the_disk_is_checked_before_the_first_byte(scene: Scene) -> None:
    with pytest.raises(
        TransferError, match=r"needs 4194304 more bytes .* only \d+ bytes"
    ) as raised:
        scene.transfer(reserve_bytes=1 << 60).run()

    assert raised.value.code == "insufficient_disk"
    assert scene.source.asked == []


def test_what_is_set_aside_already_is_not_asked_for_again(scene: Scene) -> None:
    scene.source.rule = silent(scene, after=KIB)
    running = Running(scene.transfer(stall_seconds=600.0))
    eventually(lambda: running.transfer.progress().received_bytes > 0)

    needed = scene.store.needed_bytes(scene.manifest)

    running.stop()
    assert needed == 0


def test_all_threads_together_stay_below_the_rate() -> None:
    limit = RateLimit(1_000_000)
    began = time.monotonic()

    def draw() -> None:
        for _ in range(10):
            limit.take(20_000, lambda: False)

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # 0.8 s worth of bytes; the bucket may lend a quarter of a second, never more.
    assert time.monotonic() - began >= 0.5


def test_a_rate_that_is_lifted_lets_everybody_go_at_once() -> None:
    limit = RateLimit(1)
    waiting = threading.Thread(target=limit.take, args=(1 << 40, lambda: False))
    waiting.start()

    limit.change(None)

    waiting.join(10)
    assert not waiting.is_alive()


def test_a_transfer_keeps_the_rate_and_notices_a_change(scene: Scene) -> None:
    scene.rate.change(2 * MIB)
    began = time.monotonic()
    running = Running(scene.transfer())
    eventually(lambda: running.transfer.progress().received_bytes >= 2 * MIB)
    half = time.monotonic() - began

    scene.rate.change(None)

    assert running.wait() is None
    assert half >= 0.75  # 2 MiB at 2 MiB/s, less what the bucket and open reads may hold
    scene.assert_whole()


def test_a_throttled_source_gets_more_connections_and_an_unwilling_one_fewer() -> None:
    width = Width(4, 16)
    now, received = 0.0, 0
    width.observe(now, received, False)
    for _ in range(6):
        now += 1.0
        received += width.wanted * 20_000_000  # each connection is throttled
        width.observe(now, received, False)
    widest = width.wanted
    width.push_back(now)
    width.push_back(now + 0.01)  # the other connections, a moment later

    assert (widest, width.wanted) == (16, 8)


def test_more_connections_that_bring_nothing_are_taken_back() -> None:
    width = Width(4, 16)
    seen = []
    for second in range(8):
        width.observe(float(second), second * 80_000_000, False)
        seen.append(width.wanted)

    assert max(seen) == 8
    assert seen[-1] == 4


def test_options_have_the_documented_defaults() -> None:
    options = TransferOptions()

    assert (options.connections, options.max_connections, options.stall_seconds) == (4, 16, 30.0)


def test_an_error_of_the_resolver_is_not_swallowed(scene: Scene) -> None:
    def resolve(file: ManifestFile) -> SourceUrl:
        raise TransferError("hub_gated", "no", retryable=False)

    scene.resolve = resolve

    with pytest.raises(TransferError, match="no"):
        scene.transfer().run()
