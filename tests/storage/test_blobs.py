"""What the router keeps of contents: whole, or not at all."""

import errno
import hashlib
from pathlib import Path

import pytest

from router.domain.errors import InsufficientDisk
from router.storage.blobs import BlobFolder

CONTENT = b"a content" * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def nothing() -> None:
    """What `keep` also does, when nothing else."""


def put(blobs: BlobFolder, content: bytes = CONTENT) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    intake = blobs.take_in()
    intake.begin(sha256)
    intake.write(content)
    intake.finish()
    intake.keep(nothing)
    return sha256


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_content_is_kept_only_in_the_end(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path / "b")
    intake = blobs.take_in()
    intake.begin(SHA256)
    intake.write(CONTENT)
    intake.finish()

    assert (blobs.has(SHA256), blobs.find(SHA256)) == (False, None)
    intake.keep(nothing)

    found = blobs.find(SHA256)
    assert found is not None
    assert Path(found.path).read_bytes() == CONTENT
    assert files(tmp_path) == [SHA256]


def test_what_came_in_goes_when_it_is_discarded(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path)
    intake = blobs.take_in()
    intake.begin(SHA256)
    intake.write(b"half")

    intake.discard()

    assert files(tmp_path) == []


def test_nothing_is_kept_when_what_else_is_done_fails(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path)
    old = put(blobs, b"old")
    intake = blobs.take_in()
    intake.begin(SHA256)
    intake.write(CONTENT)
    intake.finish()

    def fail() -> None:
        assert blobs.has(SHA256)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        intake.keep(fail)
    intake.discard()

    assert files(tmp_path) == [old]
    assert not blobs.has(SHA256)


def test_the_next_process_knows_what_is_kept_and_removes_the_rest(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path)
    put(blobs)
    unfinished = blobs.take_in()
    unfinished.begin("0" * 64)
    unfinished.write(b"x")

    again = BlobFolder(tmp_path)

    assert again.has(SHA256)
    assert files(tmp_path) == [SHA256]


def test_what_is_not_wanted_is_removed(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path)
    first, second = put(blobs, b"1"), put(blobs, b"2")

    assert blobs.collect(lambda: {second}) == 1

    assert (blobs.find(first), files(tmp_path)) == (None, [second])


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    intake = BlobFolder(tmp_path).take_in()
    intake.begin(SHA256)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InsufficientDisk, match="is full"):
        intake.finish()
    intake.discard()

    assert files(tmp_path) == []
