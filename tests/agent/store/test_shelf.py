"""What can be read by digest, while files come, move and go."""

import hashlib
import os
import threading
from pathlib import Path

import pytest

from agent.background import Checks
from agent.manifest import Manifest
from agent.quota import Quota
from agent.store import Digests, Origin, Partial, Readable, Shelf, Store, StoreError
from tests.agent.transfer.conftest import manifest_of, random_bytes

MIB = 1 << 20
CONTENT = random_bytes(MIB)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MODEL = manifest_of(("model.gguf", CONTENT))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty one."""
    return Store(tmp_path / "hub", tmp_path / "state")


def begin(store: Store, model: Manifest = MODEL) -> Partial:
    """An unfinished file."""
    return store.open_partial(model, model.files[0])


def commit(store: Store, partial: Partial, model: Manifest = MODEL) -> None:
    """Gives it its final name."""
    store.commit(model, model.files[0], partial, Digests(SHA256, None))


def put(store: Store, model: Manifest = MODEL) -> None:
    """A finished file."""
    partial = begin(store, model)
    partial.write(memoryview(CONTENT), 0, Origin.HUB)
    commit(store, partial, model)


def find(store: Store) -> Readable:
    """The content, which has to be there."""
    readable = store.shelf.find(SHA256)
    assert readable is not None
    return readable


def read(readable: Readable, start: int, end: int) -> bytes:
    """Bytes of it."""
    buffer = memoryview(bytearray(end - start))
    assert readable.read_into(buffer, start) == end - start
    return bytes(buffer)


def test_a_finished_file_is_whole(store: Store) -> None:
    put(store)

    with find(store) as readable:
        assert (readable.size, readable.received_bytes, readable.is_growing) == (MIB, MIB, False)
        assert readable.covers(0, MIB)
        assert not readable.covers(0, MIB + 1)
        assert read(readable, 5, 500) == CONTENT[5:500]


def test_an_unfinished_file_covers_what_counts(store: Store) -> None:
    partial = begin(store)
    partial.write(memoryview(CONTENT)[1000:2000], 1000, Origin.HUB)
    partial.place(memoryview(CONTENT)[2000:3000], 2000)

    with find(store) as readable:
        assert readable.is_growing
        assert readable.received_bytes == 1000
        assert [readable.covered_until(at) for at in (0, 1000, 1500, 2000)] == [0, 2000, 2000, 2000]
        assert readable.covers(1000, 2000)
        assert not readable.covers(999, 2000)
        assert not readable.covers(1000, 2001)
        partial.accept(2000, 3000, Origin.PEER)
        assert readable.covers(1000, 3000)
        assert read(readable, 1000, 3000) == CONTENT[1000:3000]
    partial.close()


def test_waiting_ends_when_the_byte_comes(store: Store) -> None:
    partial = begin(store)
    found: list[int] = []
    with find(store) as readable:
        waiting = threading.Thread(
            target=lambda: found.append(readable.wait_covered(500, timeout=60))
        )
        waiting.start()

        partial.write(memoryview(CONTENT)[:400], 0, Origin.HUB)
        partial.write(memoryview(CONTENT)[450:600], 450, Origin.HUB)
        waiting.join(20)

    assert found == [600]
    partial.close()


def test_waiting_ends_when_nothing_more_comes(store: Store) -> None:
    partial = begin(store)
    with find(store) as readable:
        partial.close()

        assert readable.wait_covered(0, timeout=60) == 0
        assert not readable.is_growing


def test_a_finished_file_goes_before_an_unfinished_one(store: Store) -> None:
    put(store)
    partial = begin(store, manifest_of(("model.gguf", CONTENT), repo="other/repo"))

    with find(store) as readable:
        assert readable.covers(0, MIB)
    partial.close()


def test_of_two_unfinished_ones_the_fuller_is_found_and_a_closed_one_never(store: Store) -> None:
    little, much = begin(store), begin(store)
    little.write(memoryview(CONTENT)[:10], 0, Origin.HUB)
    much.write(memoryview(CONTENT)[:500], 0, Origin.HUB)
    with find(store) as readable:
        first = readable.received_bytes

    much.close()
    with find(store) as readable:
        second = readable.received_bytes
    little.close()

    assert (first, second) == (500, 10)
    assert store.shelf.find(SHA256) is None


def test_what_is_finished_while_it_is_looked_for_is_found(store: Store) -> None:
    partial = begin(store)
    partial.write(memoryview(CONTENT), 0, Origin.HUB)
    looks = []

    def open_verified(sha256: str) -> int | None:
        path = store.locate(sha256)
        looks.append(path)
        if path is None:
            commit(store, partial)
            return None
        return os.open(path, os.O_RDONLY)

    shelf = Shelf(open_verified)
    shelf.put(SHA256, partial)

    readable = shelf.find(SHA256)

    assert readable is not None
    with readable:
        assert read(readable, 0, MIB) == CONTENT
    assert len(looks) == 2


def test_a_content_is_found_at_every_moment_of_its_commit(store: Store) -> None:
    partial = begin(store)
    partial.write(memoryview(CONTENT), 0, Origin.HUB)
    held = find(store)
    done = threading.Event()
    missed = []

    def look() -> None:
        while not done.is_set():
            readable = store.shelf.find(SHA256)
            if readable is None:
                missed.append(True)
            else:
                readable.close()

    looking = threading.Thread(target=look)
    looking.start()
    commit(store, partial)
    done.set()
    looking.join(20)

    assert missed == []
    with held:
        assert read(held, 0, MIB) == CONTENT


def test_a_file_without_a_digest_is_on_no_shelf(store: Store) -> None:
    model = manifest_of(("config.json", CONTENT), digests=False)
    partial = begin(store, model)
    partial.write(memoryview(CONTENT), 0, Origin.HUB)

    assert store.shelf.find(SHA256) is None
    assert store.shelf.find("unknown") is None
    partial.close()


def test_the_quota_leaves_what_is_being_read(store: Store) -> None:
    put(store)
    path = store.locate(SHA256)
    assert path is not None
    checks = Checks()
    quota = Quota(store, MIB + 4096, lambda: (), checks, store.shelf.is_read)
    coming = manifest_of(("other.gguf", random_bytes(MIB, 2)))

    # While it is also read to verify it, open descriptors of this process mean nothing.
    with checks.reading(path), find(store):
        with pytest.raises(StoreError) as refused, quota.room_for(coming):
            pass
        stayed = path.exists()
    with quota.room_for(coming):
        pass

    assert refused.value.code == "quota_exceeded"
    assert stayed
    assert not path.exists()
