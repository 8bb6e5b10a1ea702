"""Folders of links, over a real store and real folders."""

from pathlib import Path

import pytest

from agent.links import LinkFolder
from agent.views import FolderView, Layout, llama_server_names, lm_studio_names
from tests.agent.handover.shelf import Shelf

pytestmark = pytest.mark.anyio

OTHER = "f" * 40


def view(folder: Path, layout: Layout = llama_server_names, name: str = "view") -> FolderView:
    return FolderView(LinkFolder(folder / name, folder / f"{name}.json"), layout)


def shown(folder: Path) -> dict[str, bytes]:
    """Every name below a folder, and what a program reads there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if not path.is_dir()
    }


async def test_a_file_alone_is_flat_and_shards_or_a_projector_get_a_folder(
    tmp_path: Path, shelf: Shelf
) -> None:
    shelf.put("one-Q4_0.gguf", b"one")
    shelf.put("big-Q8_0-00001-of-00002.gguf", b"b1", repo="acme/big")
    shelf.put("big-Q8_0-00002-of-00002.gguf", b"b2", repo="acme/big")
    shelf.put("eye-Q4_0.gguf", b"eye", repo="acme/eye")
    shelf.put("eye.mmproj-F16.gguf", b"lens", repo="acme/eye")

    await view(tmp_path).follow(shelf.models())

    assert shown(tmp_path / "view") == {
        "one-Q4_0.gguf": b"one",
        "big-Q8_0/big-Q8_0-00001-of-00002.gguf": b"b1",
        "big-Q8_0/big-Q8_0-00002-of-00002.gguf": b"b2",
        "eye-Q4_0/eye-Q4_0.gguf": b"eye",
        "eye-Q4_0/mmproj-eye.mmproj-F16.gguf": b"lens",
    }


async def test_lm_studio_finds_publisher_repo_and_file(tmp_path: Path, shelf: Shelf) -> None:
    shelf.put("folder/one-Q4_0.gguf", b"one")

    await view(tmp_path, lm_studio_names).follow(shelf.models())

    assert shown(tmp_path / "view") == {"acme/tiny-GGUF/one-Q4_0.gguf": b"one"}


async def test_a_link_takes_no_space_and_goes_with_its_model(tmp_path: Path, shelf: Shelf) -> None:
    blob = shelf.put("big-00001-of-00001.gguf", b"b", repo="acme/big")
    shelf.put("eye.gguf", b"eye", repo="acme/eye")
    shelf.put("mmproj.gguf", b"lens", repo="acme/eye")
    await view(tmp_path).follow(shelf.models())
    link = tmp_path / "view" / "big.gguf"
    assert link.readlink() == blob

    shelf.remove("eye.gguf", repo="acme/eye")
    await view(tmp_path).follow(shelf.models())  # another process: it knows its own from the record

    assert shown(tmp_path / "view") == {"big.gguf": b"b"}
    assert [path.name for path in (tmp_path / "view").iterdir()] == ["big.gguf"]


async def test_what_somebody_else_put_there_is_never_touched(tmp_path: Path, shelf: Shelf) -> None:
    folder = tmp_path / "view"
    folder.mkdir()
    (folder / "mine.gguf").write_bytes(b"mine")
    (folder / "one.gguf").write_bytes(b"theirs")
    (folder / "two").write_bytes(b"a file where a folder is needed")
    shelf.put("one.gguf", b"one")
    shelf.put("two-00001-of-00002.gguf", b"1", repo="acme/two")
    shelf.put("two-00002-of-00002.gguf", b"2", repo="acme/two")
    kept = view(tmp_path)

    await kept.follow(shelf.models())
    shelf.remove("one.gguf")
    await kept.follow(shelf.models())

    assert shown(folder) == {
        "mine.gguf": b"mine",
        "one.gguf": b"theirs",
        "two": b"a file where a folder is needed",
    }


async def test_a_link_that_somebody_replaced_is_theirs(tmp_path: Path, shelf: Shelf) -> None:
    shelf.put("one.gguf", b"one")
    kept = view(tmp_path)
    await kept.follow(shelf.models())
    link = tmp_path / "view" / "one.gguf"
    link.unlink()
    link.write_bytes(b"theirs")

    await kept.follow(shelf.models())
    shelf.remove("one.gguf")
    await kept.follow(shelf.models())

    assert link.read_bytes() == b"theirs"


async def test_a_link_that_somebody_removed_comes_back(tmp_path: Path, shelf: Shelf) -> None:
    shelf.put("one.gguf", b"one")
    kept = view(tmp_path)
    await kept.follow(shelf.models())
    (tmp_path / "view" / "one.gguf").unlink()

    await kept.follow(shelf.models())

    assert shown(tmp_path / "view") == {"one.gguf": b"one"}


async def test_of_two_models_with_one_name_the_first_keeps_it_for_good(
    tmp_path: Path, shelf: Shelf
) -> None:
    kept = view(tmp_path)
    shelf.put("one.gguf", b"of z", repo="z/r")
    await kept.follow(shelf.models())

    shelf.put("one.gguf", b"of a", repo="a/r")
    await kept.follow(shelf.models())
    both = shown(tmp_path / "view")
    shelf.remove("one.gguf", repo="z/r")
    await kept.follow(shelf.models())

    assert both == {"one.gguf": b"of z", "a--r--one.gguf": b"of a"}
    assert shown(tmp_path / "view") == {"a--r--one.gguf": b"of a"}


@pytest.mark.parametrize(
    ("layout", "name"),
    [(llama_server_names, "one.gguf"), (lm_studio_names, "acme/tiny-GGUF/one.gguf")],
)
async def test_a_newer_commit_takes_the_name_of_the_older(
    tmp_path: Path, shelf: Shelf, layout: Layout, name: str
) -> None:
    kept = view(tmp_path, layout)
    shelf.put("one.gguf", b"old", commit=OTHER, written_at=1)
    await kept.follow(shelf.models())
    shelf.put("one.gguf", b"new", written_at=2)

    await kept.follow(shelf.models())

    assert shown(tmp_path / "view") == {name: b"new"}


async def test_links_that_a_dying_agent_left_are_cleaned_up(tmp_path: Path, shelf: Shelf) -> None:
    shelf.put("one.gguf", b"one")
    (tmp_path / "view").mkdir()
    (tmp_path / "view" / ".llm-router-0011").symlink_to("/nowhere")

    await view(tmp_path).follow(shelf.models())

    assert [path.name for path in (tmp_path / "view").iterdir()] == ["one.gguf"]


async def test_a_folder_that_leads_elsewhere_is_not_followed(tmp_path: Path, shelf: Shelf) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "view").mkdir()
    (tmp_path / "view" / "acme").symlink_to(elsewhere)
    shelf.put("one.gguf", b"one")

    await view(tmp_path, lm_studio_names).follow(shelf.models())

    assert not list(elsewhere.iterdir())
