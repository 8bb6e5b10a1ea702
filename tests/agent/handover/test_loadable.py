"""Which files of a cache are one model to an engine."""

import os

from agent.store.loadable import file_name
from tests.agent.handover.shelf import Shelf

OTHER = "f" * 40


def names(shelf: Shelf) -> list[list[str]]:
    return [[file_name(file) for file in model.files] for model in shelf.models()]


def test_shards_are_one_model_and_only_when_all_are_there(shelf: Shelf) -> None:
    shelf.put("a-Q4-00001-of-00002.gguf", b"1")
    assert names(shelf) == []

    shelf.put("a-Q4-00002-of-00002.gguf", b"2")
    (model,) = shelf.models()

    assert [file.path for file in model.parts] == [
        "a-Q4-00001-of-00002.gguf",
        "a-Q4-00002-of-00002.gguf",
    ]
    assert model.stem == "a-Q4"


def test_a_model_takes_the_projector_nearest_to_its_precision(shelf: Shelf) -> None:
    shelf.put("a-Q8_0.gguf", b"model")
    shelf.put("mmproj-a-F32.gguf", b"32")
    shelf.put("mmproj-a-Q8_0.gguf", b"8")

    assert names(shelf) == [["a-Q8_0.gguf", "mmproj-a-Q8_0.gguf"]]


def test_what_llama_cpp_takes_for_no_model_is_none(shelf: Shelf) -> None:
    for path in ("mmproj-a.gguf", "a.imatrix.gguf", "mtp-a.gguf", "config.json"):
        shelf.put(path, path.encode())

    assert names(shelf) == []


def test_a_file_that_nobody_has_verified_is_not_shown(shelf: Shelf) -> None:
    blob = shelf.put("a.gguf", b"content")
    shelf.put("b.gguf", b"unverified", verify=False)
    assert names(shelf) == [["a.gguf"]]

    blob.write_bytes(b"touched")
    os.utime(blob, ns=(1, 1))

    assert names(shelf) == []


def test_the_same_content_in_two_commits_is_one_model(shelf: Shelf) -> None:
    shelf.put("a.gguf", b"content")
    shelf.put("a.gguf", b"content", commit=OTHER)

    assert names(shelf) == [["a.gguf"]]
