"""Bytes that go from the socket to the file inside the kernel, and systems that cannot do so."""

import errno
import fcntl
import os

import pytest

from agent.store import Origin, Partial
from agent.transfer.pipe import open_pipe
from tests.agent.transfer.conftest import Scene


def refuse(*_: object, **__: object) -> int:
    """What a system says to a call that it does not know."""
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def test_plain_bytes_never_come_into_the_process(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", refuse)

    scene.transfer().run()

    scene.assert_whole()


def test_a_system_without_splice_gets_the_file_all_the_same(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "splice", refuse)

    scene.transfer().run()

    scene.assert_whole()


def test_a_file_system_without_splice_is_asked_once_and_gets_the_file(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = os.splice, []

    def splice(source: int, target: int, count: int, *, offset_dst: int | None = None) -> int:
        if offset_dst is None:
            return real(source, target, count)
        asked.append(offset_dst)
        return refuse()

    monkeypatch.setattr(os, "splice", splice)

    scene.transfer(connections=1, max_connections=1).run()

    scene.assert_whole()
    assert len({offset // scene.options.piece_bytes for offset in asked}) == 1


def test_a_system_that_grants_no_large_pipe_gets_the_file_all_the_same(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "fcntl", refuse)

    scene.transfer().run()

    scene.assert_whole()
    assert open_pipe() is None


def test_bytes_of_a_pipe_are_counted_and_survive_like_any_others(scene: Scene) -> None:
    path = scene.folder / "x.part"
    partial = Partial(path, 10, "9f" * 32)
    pipe = open_pipe()
    assert pipe is not None
    os.write(pipe.in_end, b"world")

    partial.write_from(pipe.out_end, 5, 5, Origin.HUB)
    partial.write(memoryview(b"hello"), 0, Origin.HUB)
    partial.flush()
    partial.close()
    pipe.close()

    again = Partial(path, 10, "9f" * 32)
    assert (again.frontier, again.received.hub) == (10, 10)
    assert path.read_bytes() == b"helloworld"
    again.close()
