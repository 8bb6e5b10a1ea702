"""Ollama is shown the models, over a server that behaves as its source says."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.links import LinkFolder, LinkKind
from agent.ollama import OllamaUnreachable, OllamaView
from tests.agent.handover.fake_ollama import FakeOllama
from tests.agent.handover.shelf import Shelf

pytestmark = pytest.mark.anyio

NAME = "acme/tiny-GGUF:Q4_0"


@pytest.fixture
def ollama(tmp_path: Path) -> Iterator[FakeOllama]:
    with FakeOllama(tmp_path / "ollama") as running:
        yield running


def view(tmp_path: Path, url: str) -> OllamaView:
    root = tmp_path / "ollama"
    blobs = LinkFolder(root / "blobs", tmp_path / "blobs.json", LinkKind.HARD)
    return OllamaView(root, blobs, url, tmp_path / "ollama.json")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob(tmp_path: Path, content: bytes) -> Path:
    return tmp_path / "ollama" / "blobs" / f"sha256-{digest(content)}"


async def test_a_model_and_its_projector_are_made_of_hard_links(
    tmp_path: Path, shelf: Shelf, ollama: FakeOllama
) -> None:
    stored = shelf.put("a-Q4_0.gguf", b"model")
    shelf.put("mmproj-a.gguf", b"lens")

    await view(tmp_path, ollama.url).follow(shelf.models())

    assert ollama.models == {
        NAME: {
            "a-Q4_0.gguf": f"sha256:{digest(b'model')}",
            "mmproj-a.gguf": f"sha256:{digest(b'lens')}",
        }
    }
    assert blob(tmp_path, b"model").samefile(stored)
    assert not blob(tmp_path, b"model").is_symlink()


async def test_what_ollama_has_already_is_not_made_again(
    tmp_path: Path, shelf: Shelf, ollama: FakeOllama
) -> None:
    shelf.put("a-Q4_0.gguf", b"model")
    await view(tmp_path, ollama.url).follow(shelf.models())
    ollama.calls.clear()

    await view(tmp_path, ollama.url).follow(shelf.models())

    assert ollama.calls == []


async def test_a_model_that_went_leaves_ollama_with_its_blob(
    tmp_path: Path, shelf: Shelf, ollama: FakeOllama
) -> None:
    shelf.put("a-Q4_0.gguf", b"model")
    kept = view(tmp_path, ollama.url)
    await kept.follow(shelf.models())

    shelf.remove("a-Q4_0.gguf")
    await kept.follow(shelf.models())

    assert ollama.models == {}
    assert not blob(tmp_path, b"model").exists()


async def test_a_blob_that_another_model_of_ollama_needs_stays(
    tmp_path: Path, shelf: Shelf, ollama: FakeOllama
) -> None:
    shelf.put("a-Q4_0.gguf", b"model")
    kept = view(tmp_path, ollama.url)
    await kept.follow(shelf.models())
    ollama.make("mine:latest", {"x.gguf": f"sha256:{digest(b'model')}"})

    shelf.remove("a-Q4_0.gguf")
    await kept.follow(shelf.models())
    await kept.follow(shelf.models())

    assert set(ollama.models) == {"mine:latest"}
    assert blob(tmp_path, b"model").read_bytes() == b"model"


async def test_a_model_of_this_name_that_is_not_ours_is_left_alone(
    tmp_path: Path, shelf: Shelf, ollama: FakeOllama
) -> None:
    ollama.make(NAME, {"theirs.gguf": "sha256:00"})
    shelf.put("a-Q4_0.gguf", b"model")
    kept = view(tmp_path, ollama.url)

    await kept.follow(shelf.models())
    shelf.remove("a-Q4_0.gguf")
    await kept.follow(shelf.models())

    assert ollama.models == {NAME: {"theirs.gguf": "sha256:00"}}


async def test_a_model_of_several_shards_is_left_out(
    tmp_path: Path, shelf: Shelf, ollama: FakeOllama
) -> None:
    shelf.put("a-Q4_0-00001-of-00002.gguf", b"1")
    shelf.put("a-Q4_0-00002-of-00002.gguf", b"2")

    await view(tmp_path, ollama.url).follow(shelf.models())

    assert ollama.models == {}


async def test_two_files_of_one_quantization_get_two_names(
    tmp_path: Path, shelf: Shelf, ollama: FakeOllama
) -> None:
    shelf.put("a-Q4_0.gguf", b"a")
    shelf.put("b-Q4_0.gguf", b"b")

    await view(tmp_path, ollama.url).follow(shelf.models())

    assert set(ollama.models) == {NAME, "acme/tiny-GGUF:b-Q4_0"}


async def test_when_ollama_is_away_it_is_told_later(tmp_path: Path, shelf: Shelf) -> None:
    shelf.put("a-Q4_0.gguf", b"model")
    with FakeOllama(tmp_path / "ollama") as gone:
        url = gone.url
    kept = view(tmp_path, url)

    with pytest.raises(OllamaUnreachable):
        await kept.follow(shelf.models())
