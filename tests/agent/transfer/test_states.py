"""What a transfer says it does, while it has several files to bring."""

import threading
from pathlib import Path

from agent.manifest import ManifestFile
from agent.transfer import SourceUrl, TransferState
from tests.agent.transfer.conftest import KIB, MIB, Running, Scene, manifest_of, random_bytes
from tests.fakes.http_source import Answer, Asked, Ending
from tests.support import eventually


class Shelf:
    """Several files behind the scene's source; what is in `held` is not sent yet."""

    def __init__(self, scene: Scene, sizes: dict[str, int]) -> None:
        self.files = {path: random_bytes(size, n) for n, (path, size) in enumerate(sizes.items())}
        self.held: set[str] = set()
        scene.manifest = manifest_of(*self.files.items())
        scene.source.rule = self._serve
        base = scene.source.url.rpartition("/")[0]
        scene.resolve = lambda file: SourceUrl(f"{base}/{file.path}")

    def _serve(self, asked: Asked) -> Answer:
        path = asked.target.removeprefix("/")
        content = self.files[path]
        start, _, last = asked.fields["range"].removeprefix("bytes=").partition("-")
        body = content[int(start) : int(last) + 1]
        fields = {
            "Content-Range": f"bytes {start}-{last}/{len(content)}",
            "Content-Length": str(len(body)),
        }
        if path in self.held:
            return Answer(206, fields, body[:KIB], Ending.SILENCE)
        return Answer(206, fields, body)


def states_of(running: Running) -> list[TransferState]:
    """Every state that was seen until the end, without repetitions."""
    seen: list[TransferState] = []

    def look() -> None:
        while not ended.is_set():
            state = running.transfer.progress().state
            if not seen or seen[-1] is not state:
                seen.append(state)
            ended.wait(0.0005)

    ended = threading.Event()
    looking = threading.Thread(target=look)
    looking.start()
    assert running.wait() is None
    ended.set()
    looking.join()
    return seen


def test_a_fresh_transfer_downloads_before_anything_else(scene: Scene) -> None:
    transfer = scene.transfer()

    before = transfer.progress().state
    states = states_of(Running(transfer))

    assert before is TransferState.DOWNLOADING
    assert states[0] is TransferState.DOWNLOADING
    assert transfer.progress().state is TransferState.VERIFYING


def test_several_files_are_verified_once_in_the_eyes_of_a_watcher(scene: Scene) -> None:
    Shelf(scene, {f"{n}.gguf": 300 * KIB for n in range(6)})

    states = states_of(Running(scene.transfer()))

    assert states in (
        [TransferState.DOWNLOADING],
        [TransferState.DOWNLOADING, TransferState.VERIFYING],
    )


def test_a_file_that_is_whole_while_another_is_not_counts_as_downloading(scene: Scene) -> None:
    shelf = Shelf(scene, {"1.gguf": MIB, "2.gguf": MIB})
    shelf.held = {"2.gguf"}
    running = Running(scene.transfer(stall_seconds=600.0))

    eventually(lambda: running.transfer.progress().received_bytes > MIB)

    assert running.transfer.progress().state is TransferState.DOWNLOADING
    assert running.transfer.progress().note == ""
    running.stop()


def test_reading_again_what_is_on_disk_is_verifying_only_if_nothing_is_to_be_fetched(
    scene: Scene,
) -> None:
    shelf = Shelf(scene, {"1.gguf": 4 * MIB, "2.gguf": MIB})
    _put(scene, scene.manifest.files[0], shelf.files["1.gguf"])
    states = states_of(Running(scene.transfer()))
    only = manifest_of(("1.gguf", shelf.files["1.gguf"]), repo="p/q")
    scene.manifest, first = only, scene.manifest
    _put(scene, only.files[0], shelf.files["1.gguf"])
    (scene.folder / "state" / "verified.json").unlink()
    again = states_of(Running(scene.transfer()))

    assert states[-1] is TransferState.VERIFYING
    assert TransferState.DOWNLOADING not in states[states.index(TransferState.VERIFYING) :]
    assert again[-1] is TransferState.VERIFYING
    assert scene.source.bytes_served == first.files[1].size_bytes


def _put(scene: Scene, file: ManifestFile, content: bytes) -> None:
    """A file as another program leaves it in the cache."""
    snapshot = scene.store.snapshot(scene.manifest)
    snapshot.mkdir(parents=True)
    Path(snapshot / file.path).write_bytes(content)
