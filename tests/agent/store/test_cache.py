"""The store on disk, beside the real huggingface_hub."""

import errno
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download, scan_cache_dir

from agent.manifest import Manifest, ManifestFile
from agent.store import Digests, FileState, Origin, Store, StoreError
from agent.store.errors import store_error
from tests.agent.transfer.conftest import manifest_of, random_bytes

CONTENT = random_bytes(5000)
OTHER = random_bytes(3000, 2)
MODEL = manifest_of(("sub/model.gguf", CONTENT))
COMMIT = "c" * 40


@pytest.fixture
def open_store(tmp_path: Path) -> Callable[[], Store]:
    """Opens the same store anew, as a restarted agent does."""
    return lambda: Store(tmp_path / "hub", tmp_path / "state")


def digests_of(content: bytes) -> Digests:
    """What a download reports."""
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return Digests(hashlib.sha256(content).hexdigest(), git)


def put(store: Store, manifest: Manifest, *contents: bytes) -> None:
    """Brings files in, as a transfer does."""
    for file, content in zip(manifest.files, contents, strict=True):
        claim = store.try_claim(manifest, file)
        assert claim is not None
        partial = store.open_partial(manifest, file)
        partial.write(memoryview(content), 0, Origin.HUB)
        store.commit(manifest, file, partial, digests_of(content))
        claim.release()
    store.finish(manifest)


def as_hf_does(store: Store, content: bytes, path: str = "sub/model.gguf") -> Path:
    """Puts a file where `hf download` would; returns the blob."""
    folder = store.models_dir / "models--o--r"
    blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    visible = folder / "snapshots" / COMMIT / path
    visible.parent.mkdir(parents=True, exist_ok=True)
    visible.symlink_to(os.path.relpath(blob, visible.parent))
    return blob


def state(store: Store, manifest: Manifest = MODEL) -> FileState:
    """The state of the first file."""
    return store.find(manifest)[0].state


def test_huggingface_hub_finds_what_was_committed(open_store: Callable[[], Store]) -> None:
    store = open_store()

    put(store, MODEL, CONTENT)

    found = hf_hub_download(
        "o/r", "sub/model.gguf", cache_dir=store.models_dir, local_files_only=True
    )
    assert Path(found).read_bytes() == CONTENT
    assert Path(found).readlink() == Path("../../../blobs", MODEL.files[0].sha256 or "")


def test_the_scan_of_huggingface_hub_lists_it_without_a_warning(
    open_store: Callable[[], Store],
) -> None:
    store = open_store()
    put(store, MODEL, CONTENT)
    store.open_partial(manifest_of(("b.gguf", OTHER)), manifest_of(("b.gguf", OTHER)).files[0])

    info = scan_cache_dir(store.models_dir)

    assert not info.warnings
    (repo,) = info.repos
    (revision,) = repo.revisions
    assert (repo.repo_id, revision.commit_hash, set(revision.refs)) == ("o/r", COMMIT, {"main"})
    assert {(f.file_name, f.size_on_disk) for f in revision.files} == {("model.gguf", 5000)}


def test_a_file_without_a_digest_is_named_as_git_names_it(open_store: Callable[[], Store]) -> None:
    manifest = manifest_of(("config.json", OTHER), digests=False)
    store = open_store()

    put(store, manifest, OTHER)

    (stored,) = store.inventory()
    assert stored.location.name == digests_of(OTHER).git_sha1
    assert open_store().holds(manifest)


def test_a_store_remembers_over_restarts_what_it_has_verified(
    open_store: Callable[[], Store],
) -> None:
    put(open_store(), MODEL, CONTENT)

    assert open_store().holds(MODEL)


def test_a_wrong_digest_is_never_committed(open_store: Callable[[], Store]) -> None:
    store = open_store()
    partial = store.open_partial(MODEL, MODEL.files[0])

    with pytest.raises(StoreError) as raised:
        store.commit(MODEL, MODEL.files[0], partial, digests_of(OTHER))

    assert raised.value.code == "digest_mismatch"
    assert store.inventory() == []


def test_what_hf_download_left_is_adopted_after_one_look(open_store: Callable[[], Store]) -> None:
    store = open_store()
    as_hf_does(store, CONTENT)
    before = state(store)

    checked = store.verify(store.find(MODEL)[0])
    assert checked is not None
    store.adopt(MODEL, checked)

    assert (before, state(store)) == (FileState.UNVERIFIED, FileState.VERIFIED)
    assert open_store().holds(MODEL)


def test_a_file_that_is_touched_is_not_believed_any_more(open_store: Callable[[], Store]) -> None:
    store = open_store()
    put(store, MODEL, CONTENT)
    blob = store.inventory()[0].location

    blob.write_bytes(bytes(5000))

    assert state(store) is FileState.UNVERIFIED
    checked = store.verify(store.find(MODEL)[0])
    assert checked is not None
    assert checked.state is FileState.DAMAGED
    assert state(open_store()) is FileState.DAMAGED
    assert not store.holds(MODEL)


def test_a_file_of_another_size_is_damaged_and_a_removed_one_absent(
    open_store: Callable[[], Store],
) -> None:
    store = open_store()
    put(store, MODEL, CONTENT)
    blob = store.inventory()[0].location

    blob.write_bytes(b"short")
    damaged = state(store)
    blob.unlink()

    assert (damaged, state(store)) == (FileState.DAMAGED, FileState.ABSENT)


def test_a_damaged_file_is_replaced_in_one_step(open_store: Callable[[], Store]) -> None:
    store = open_store()
    blob = as_hf_does(store, CONTENT)
    blob.write_bytes(bytes(5000))

    with blob.open("rb") as reader:
        put(store, MODEL, CONTENT)
        assert reader.read() == bytes(5000)  # whoever had it open keeps what it read

    assert blob.read_bytes() == CONTENT
    assert store.holds(MODEL)


def test_a_blob_that_huggingface_shares_between_repositories_is_understood(
    open_store: Callable[[], Store],
) -> None:
    store = open_store()
    blob = as_hf_does(store, CONTENT)
    shared = store.models_dir / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(os.path.relpath(shared, blob.parent))

    checked = store.verify(store.find(MODEL)[0])
    assert checked is not None
    store.adopt(MODEL, checked)
    held = store.holds(MODEL)
    freed = store.evict(MODEL)

    assert held
    assert freed >= 5000
    assert not shared.exists()


def test_a_damaged_shared_blob_is_not_written_to(open_store: Callable[[], Store]) -> None:
    store = open_store()
    blob = as_hf_does(store, CONTENT)
    shared = store.models_dir / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    shared.write_bytes(OTHER)
    blob.unlink()
    blob.symlink_to(os.path.relpath(shared, blob.parent))

    put(store, MODEL, CONTENT)

    assert shared.read_bytes() == OTHER
    assert store.holds(MODEL)


def test_one_content_in_two_repositories_takes_its_space_once(
    open_store: Callable[[], Store],
) -> None:
    store = open_store()
    put(store, MODEL, CONTENT)
    second = manifest_of(("same.gguf", CONTENT), repo="p/q")

    found = store.find(second)[0]
    store.adopt(second, found)
    store.finish(second)

    first_file, second_file = store.inventory()
    assert first_file.location.samefile(second_file.location)
    assert store.holds(MODEL) and store.holds(second)
    assert store.evict(MODEL) == 0
    assert store.holds(second)
    assert store.evict(second) > 0


def test_evicting_leaves_what_another_commit_shows(open_store: Callable[[], Store]) -> None:
    store = open_store()
    newer = Manifest(MODEL.model_name, "o/r", "main", "d" * 40, "n" * 64, MODEL.files)
    put(store, MODEL, CONTENT)
    store.adopt(newer, store.find(newer)[0])
    store.finish(newer)

    freed = store.evict(MODEL)

    assert freed == 0
    assert store.holds(newer)
    assert not store.holds(MODEL)


def test_evicting_leaves_other_files_of_the_same_repository(
    open_store: Callable[[], Store],
) -> None:
    store = open_store()
    other = manifest_of(("other.gguf", OTHER))
    put(store, MODEL, CONTENT)
    put(store, other, OTHER)

    store.evict(MODEL)

    assert store.holds(other)
    assert (store.models_dir / "models--o--r" / "refs" / "main").read_text() == COMMIT


def test_evicting_the_last_model_leaves_no_trace_and_can_be_repeated(
    open_store: Callable[[], Store],
) -> None:
    store = open_store()
    put(store, MODEL, CONTENT)

    freed = store.evict(MODEL)

    assert freed >= 5000
    assert store.evict(MODEL) == 0
    assert not (store.models_dir / "models--o--r").exists()


def test_a_folder_that_leads_out_of_the_cache_is_refused(
    open_store: Callable[[], Store], tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    store = open_store()
    (store.models_dir / "models--o--r").symlink_to(outside)

    with pytest.raises(StoreError):
        put(store, MODEL, CONTENT)

    assert list(outside.iterdir()) == []


def test_a_link_to_a_file_outside_of_the_cache_is_not_a_model(
    open_store: Callable[[], Store], tmp_path: Path
) -> None:
    store = open_store()
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    blob = as_hf_does(store, CONTENT)
    blob.unlink()
    blob.symlink_to(secret)

    assert state(store) is FileState.ABSENT
    assert store.inventory() == []
    store.evict(MODEL)
    assert secret.read_bytes() == CONTENT


def test_only_one_may_fetch_a_content_and_huggingface_waits_too(
    open_store: Callable[[], Store],
) -> None:
    store, file = open_store(), MODEL.files[0]
    claim = store.try_claim(MODEL, file)
    assert claim is not None

    second = open_store().try_claim(MODEL, file)
    claim.release()
    third = open_store().try_claim(MODEL, file)

    assert second is None
    assert third is not None
    lock = store.models_dir / ".locks" / "models--o--r" / f"{file.sha256}.lock"
    assert lock.exists()


def test_partials_of_an_order_are_thrown_away_unless_in_use(
    open_store: Callable[[], Store],
) -> None:
    store, file = open_store(), MODEL.files[0]
    partial = store.open_partial(MODEL, file)
    partial.write(memoryview(CONTENT)[:4096], 0, Origin.PEER)
    partial.flush()
    partial.close()
    claim = store.try_claim(MODEL, file)
    assert claim is not None

    in_use = store.discard_partials(MODEL)
    found = store.find(MODEL)[0]
    claim.release()
    freed = store.discard_partials(MODEL)

    assert (in_use, found.state, found.partial_bytes) == (0, FileState.PARTIAL, 4096)
    assert freed >= 4096
    assert state(store) is FileState.ABSENT


def test_bytes_beyond_the_window_wait_for_a_flush(open_store: Callable[[], Store]) -> None:
    store = open_store()
    partial = store.open_partial(MODEL, MODEL.files[0], window=2000)
    done = threading.Event()

    def write() -> None:
        partial.write(memoryview(CONTENT)[:2000], 0, Origin.HUB)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    partial.wait_unflushed(2000, 10)
    blocked = not done.is_set()
    partial.flush()
    thread.join(10)

    assert blocked
    assert done.is_set()
    assert store.find(MODEL)[0].partial_bytes == 2000


def test_the_journal_says_nothing_of_bytes_that_could_not_be_flushed(
    open_store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    partial = store.open_partial(MODEL, MODEL.files[0])
    partial.write(memoryview(CONTENT), 0, Origin.HUB)

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(StoreError) as raised:
        partial.flush()

    assert raised.value.code == "store_failed"
    assert store.find(MODEL)[0].partial_bytes == 0


def test_a_content_can_be_looked_up_by_its_digest(open_store: Callable[[], Store]) -> None:
    store = open_store()
    put(store, MODEL, CONTENT)

    found = store.locate(MODEL.files[0].sha256 or "")

    assert found is not None
    assert found.read_bytes() == CONTENT
    assert store.locate("0" * 64) is None


def test_a_lost_memory_costs_a_second_look_and_nothing_else(
    open_store: Callable[[], Store], tmp_path: Path
) -> None:
    put(open_store(), MODEL, CONTENT)
    (tmp_path / "state" / "verified.json").write_text("{torn")

    assert state(open_store()) is FileState.UNVERIFIED


@pytest.mark.parametrize(
    ("number", "code", "retryable"),
    [
        (errno.ENOSPC, "disk_full", True),
        (errno.EDQUOT, "disk_full", True),
        (errno.EROFS, "store_read_only", False),
        (errno.EACCES, "store_read_only", False),
        (errno.EIO, "store_failed", True),
    ],
)
def test_errors_of_the_disk_have_names(number: int, code: str, retryable: bool) -> None:
    error = store_error(OSError(number, os.strerror(number)), "writing x")

    assert (error.code, error.retryable) == (code, retryable)


def test_names_from_outside_never_leave_the_cache() -> None:
    with pytest.raises(ValueError, match="not a file"):
        ManifestFile("../../etc/passwd", 1, None, "https://hub.invalid/x")
