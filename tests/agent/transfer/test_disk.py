"""A disk that has too little room, at the start or on the way."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from agent.store import Store, StoreError
from agent.transfer import SourceUrl, Transfer, TransferError, TransferState
from tests.agent.transfer.conftest import MIB, Running, Scene, manifest_of, random_bytes
from tests.agent.transfer.test_states import Shelf
from tests.support import eventually

QUICKLY = {"room_seconds": 0.02}


class SmallDisk(Store):
    """A store on a disk that has only so much room beside what the models take."""

    room = 1 << 40

    def free_bytes(self) -> int:
        """See `Store`."""
        taken = sum(p.stat().st_blocks * 512 for p in self.models_dir.rglob("*.part"))
        return max(0, self.room - taken)


def transfer_on(scene: Scene, store: Store, **changes: object) -> Transfer:
    """A transfer into this very store."""
    return Transfer(
        scene.manifest,
        store,
        replace(scene.options, **{**QUICKLY, **changes}),  # type: ignore[arg-type]
        scene.rate,
        scene.resolve or (lambda file: SourceUrl(scene.source.url)),
        scene.log,
    )


def small_disk(folder: Path, room: int = 1 << 40) -> SmallDisk:
    """An empty store on a small disk."""
    store = SmallDisk(folder / "hub", folder / "state")
    store.room = room
    return store


def test_a_disk_that_fills_on_the_way_is_shown_and_waited_for(scene: Scene) -> None:
    shelf = Shelf(scene, {"1.gguf": MIB, "2.gguf": MIB})
    shelf.held = {"1.gguf"}
    store = small_disk(scene.folder)
    running = Running(transfer_on(scene, store, stall_seconds=0.2))
    eventually(lambda: running.transfer.progress().received_bytes > 0)
    store.room = MIB // 2
    shelf.held = set()

    eventually(lambda: running.transfer.progress().state is TransferState.WAITING)
    eventually(lambda: running.transfer.progress().note.startswith("disk_full: "))
    shown = running.transfer.progress()
    store.room = 1 << 40

    assert running.wait() is None
    assert f"{MIB} bytes are needed and {MIB // 2} may be used" in shown.note
    assert shown.received_bytes == MIB
    assert store.holds(scene.manifest)
    assert ("waiting for room on the disk", "disk_full") in [
        (event, fields.get("code")) for event, fields in scene.log.events
    ]


@pytest.mark.parametrize("spliced", [True, False])
def test_a_write_that_finds_the_disk_full_is_done_again_when_there_is_room(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, spliced: bool
) -> None:
    real, real_splice = os.pwrite, os.splice
    left = [2 * MIB]

    def take(count: int) -> None:
        left[0] -= count
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def pwrite(descriptor: int, data: memoryview, offset: int) -> int:
        take(len(data))
        return real(descriptor, data, offset)

    def splice(source: int, target: int, count: int, *, offset_dst: int | None = None) -> int:
        if not spliced:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if offset_dst is not None:
            take(count)
        return real_splice(source, target, count, offset_dst=offset_dst)

    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(os, "splice", splice)
    running = Running(transfer_on(scene, small_disk(scene.folder)))
    eventually(lambda: "disk_full" in running.transfer.progress().note)
    before = running.transfer.progress().received_bytes

    left[0] = 1 << 40

    assert running.wait() is None
    assert 0 < before <= 2 * MIB
    scene.assert_whole()
    assert scene.source.bytes_served < 6 * MIB  # what was on disk is not fetched again


def test_a_wait_for_room_can_be_stopped_and_gone_on_with(scene: Scene) -> None:
    Shelf(scene, {"1.gguf": MIB, "2.gguf": MIB})
    store = small_disk(scene.folder)
    scene.rate.change(MIB)
    running = Running(transfer_on(scene, store, room_seconds=600.0))
    eventually(lambda: running.transfer.progress().received_bytes > 0)
    store.room = MIB // 2
    scene.rate.change(None)
    eventually(lambda: running.transfer.progress().note.startswith("disk_full: "))

    running.stop()
    store.room = 1 << 40
    transfer_on(scene, store).run()

    assert store.holds(scene.manifest)


def test_who_does_not_want_to_wait_is_told_the_cause(scene: Scene) -> None:
    Shelf(scene, {"1.gguf": MIB, "2.gguf": MIB})
    store = small_disk(scene.folder)
    scene.rate.change(MIB)
    running = Running(transfer_on(scene, store, wait_for_room=False))
    eventually(lambda: running.transfer.progress().received_bytes > 0)
    store.room = MIB // 2
    scene.rate.change(None)

    error = running.wait()

    assert isinstance(error, TransferError)
    assert (error.code, error.retryable) == ("disk_full", True)


def test_two_transfers_that_fit_only_one_at_a_time_do_not_both_begin(scene: Scene) -> None:
    one = scene.manifest
    other = manifest_of(("other.gguf", random_bytes(4 * MIB, 9)), repo="p/q")
    store = small_disk(scene.folder, room=6 * MIB)

    with (
        store.space_for(one, reserve_bytes=0),
        pytest.raises(
            StoreError, match=rf"needs {4 * MIB} more .* {4 * MIB} of them promised"
        ) as raised,
        store.space_for(other, reserve_bytes=0),
    ):
        pass

    assert raised.value.code == "insufficient_disk"
    with store.space_for(other, reserve_bytes=0):
        pass


def test_the_reserve_stays_free_on_the_way_too(scene: Scene) -> None:
    Shelf(scene, {"1.gguf": MIB, "2.gguf": MIB})
    store = small_disk(scene.folder)
    scene.rate.change(MIB)
    running = Running(transfer_on(scene, store, reserve_bytes=MIB))
    eventually(lambda: running.transfer.progress().received_bytes > 0)
    store.room = MIB + MIB // 2
    scene.rate.change(None)

    eventually(lambda: running.transfer.progress().note.startswith("disk_full: "))

    assert not store.holds(scene.manifest)
    store.room = 1 << 40
    assert running.wait() is None
