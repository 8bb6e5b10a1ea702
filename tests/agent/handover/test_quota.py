"""A ceiling for the models on disk, over a real store."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.background import Checks
from agent.manifest import Manifest
from agent.quota import Quota, used_bytes
from agent.store import StoreError
from tests.agent.handover.shelf import REPO, Shelf
from tests.agent.support import manifest

MB = 1 << 20


def content(letter: str) -> bytes:
    return letter.encode() * MB


def stored(shelf: Shelf, path: str, *, used_at: int) -> Path:
    """One MiB that was used last at that moment."""
    blob = shelf.put(path, content(path[0]), written_at=used_at)
    assert used_bytes(shelf.store.models_dir) % MB < 64 << 10
    return blob


def wish(letter: str, repo: str = REPO) -> Manifest:
    return manifest(repo, {f"{letter}.gguf": content(letter)})


def quota(shelf: Shelf, mebibytes: float, *wanted: Manifest) -> Quota:
    return Quota(shelf.store, int(mebibytes * MB), lambda: wanted)


def test_the_least_recently_used_goes_until_what_comes_fits(shelf: Shelf) -> None:
    old, older, new = (
        stored(shelf, "a.gguf", used_at=200),
        stored(shelf, "b.gguf", used_at=100),
        stored(shelf, "c.gguf", used_at=300),
    )

    with quota(shelf, 2.5).room_for(wish("z")):
        pass

    assert (old.exists(), older.exists(), new.exists()) == (False, False, True)


def test_nothing_goes_while_there_is_room_or_nothing_to_fetch(shelf: Shelf) -> None:
    blobs = [stored(shelf, "a.gguf", used_at=1), stored(shelf, "b.gguf", used_at=2)]

    with quota(shelf, 3.5).room_for(wish("z")), quota(shelf, 0.1).room_for(wish("a")):
        pass

    assert all(blob.exists() for blob in blobs)


def test_what_an_order_wants_stays_and_the_task_is_refused_with_the_figures(
    shelf: Shelf,
) -> None:
    ordered = stored(shelf, "a.gguf", used_at=1)
    stored(shelf, "b.gguf", used_at=2)

    with pytest.raises(StoreError) as refused, quota(shelf, 1.5, wish("a")).room_for(wish("z")):
        pass

    assert refused.value.code == "quota_exceeded"
    assert f"needs {MB} more bytes" in refused.value.message
    assert str(int(1.5 * MB)) in refused.value.message
    assert ordered.exists()


def test_a_content_that_an_order_wants_under_another_name_stays(shelf: Shelf) -> None:
    ordered = stored(shelf, "a.gguf", used_at=1)

    with (
        pytest.raises(StoreError),
        quota(shelf, 1.5, wish("a", "other/repo")).room_for(wish("z")),
    ):
        pass

    assert ordered.exists()


def test_a_file_that_somebody_reads_stays(shelf: Shelf) -> None:
    read = stored(shelf, "a.gguf", used_at=1)
    idle = stored(shelf, "b.gguf", used_at=2)

    with read.open("rb"), quota(shelf, 2.5).room_for(wish("z")):
        pass

    assert (read.exists(), idle.exists()) == (True, False)


def test_a_file_that_is_only_verified_is_not_used_unless_another_program_has_it(
    shelf: Shelf,
) -> None:
    verified = stored(shelf, "a.gguf", used_at=1)
    mapped = stored(shelf, "b.gguf", used_at=2)
    checks = Checks()
    program = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import mmap, sys; f = open(sys.argv[1], 'rb'); "
            "m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ); f.close(); "
            "print(flush=True); sys.stdin.read()",
            str(mapped),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert program.stdout is not None
    program.stdout.readline()
    limited = Quota(shelf.store, int(2.5 * MB), lambda: (), checks)

    with (
        verified.open("rb"),
        checks.reading(verified),
        checks.reading(mapped),
        limited.room_for(wish("z")),
    ):
        pass
    program.communicate()

    assert (verified.exists(), mapped.exists()) == (False, True)


def test_shards_go_together(shelf: Shelf) -> None:
    for number, letter in enumerate("ab", start=1):
        shelf.put(f"s-0000{number}-of-00002.gguf", content(letter), written_at=number)

    with quota(shelf, 2.5).room_for(wish("z")):
        pass

    assert shelf.store.inventory() == []


def test_downloads_that_run_count_with_all_that_they_still_need(shelf: Shelf) -> None:
    shared = quota(shelf, 1.5)

    with shared.room_for(wish("y")):
        with pytest.raises(StoreError) as refused, shared.room_for(wish("z")):
            pass
        assert refused.value.retryable

    with shared.room_for(wish("z")):
        pass


def test_an_order_that_comes_while_files_are_chosen_saves_them(shelf: Shelf) -> None:
    wanted = stored(shelf, "a.gguf", used_at=1)
    asked: list[int] = []

    def orders() -> list[Manifest]:
        asked.append(1)
        return [wish("a")] if len(asked) > 1 else []

    with pytest.raises(StoreError), Quota(shelf.store, MB, orders).room_for(wish("z")):
        pass

    assert wanted.exists()


def test_without_a_quota_nothing_goes(shelf: Shelf) -> None:
    stays = stored(shelf, "a.gguf", used_at=1)

    with Quota(shelf.store, None, lambda: ()).room_for(wish("z")):
        pass

    assert stays.exists()


def test_unfinished_files_count_and_a_content_with_two_names_counts_once(shelf: Shelf) -> None:
    blob = stored(shelf, "a.gguf", used_at=1)
    other = blob.parents[2] / "models--acme--other" / "blobs"
    other.mkdir(parents=True)
    os.link(blob, other / blob.name)
    part = shelf.store.models_dir / ".locks" / "llm-router" / "x.part"
    part.write_bytes(content("p"))

    assert 2 * MB <= used_bytes(shelf.store.models_dir) < 2.2 * MB
