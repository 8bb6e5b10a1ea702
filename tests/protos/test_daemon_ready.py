"""The ready file of a daemon."""

import json
import os
from pathlib import Path

import pytest

from protos.daemon.ready import remove_ready_file, version, write_ready_file


def test_the_ready_file_tells_pid_version_and_addresses(tmp_path: Path) -> None:
    path = tmp_path / "ready.json"

    write_ready_file(path, http="http://127.0.0.1:8080", grpc="127.0.0.1:50051")

    assert json.loads(path.read_text()) == {
        "pid": os.getpid(),
        "version": version(),
        "http": "http://127.0.0.1:8080",
        "grpc": "127.0.0.1:50051",
    }
    assert list(tmp_path.iterdir()) == [path]


def test_without_a_path_nothing_is_written() -> None:
    write_ready_file(None, http="http://127.0.0.1:1")
    remove_ready_file(None)


def test_a_file_that_cannot_be_put_in_place_leaves_nothing_behind(tmp_path: Path) -> None:
    taken = tmp_path / "ready.json"
    taken.mkdir()

    with pytest.raises(OSError):
        write_ready_file(taken, http="http://127.0.0.1:1")

    assert list(tmp_path.iterdir()) == [taken]


def test_a_stopping_daemon_removes_its_own_file_only(tmp_path: Path) -> None:
    own, foreign = tmp_path / "own.json", tmp_path / "foreign.json"
    write_ready_file(own, http="http://127.0.0.1:1")
    foreign.write_text(json.dumps({"pid": os.getpid() + 1}))

    for path in (own, foreign, tmp_path / "absent.json"):
        remove_ready_file(path)

    assert list(tmp_path.iterdir()) == [foreign]
