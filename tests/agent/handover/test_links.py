"""Links where the disk, or the moment, is against them."""

import errno
import os
from pathlib import Path

import pytest

from agent.links import LinkFolder, LinkKind


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """A file of the store."""
    path = tmp_path / "content"
    path.write_bytes(b"content")
    return path


def folder(tmp_path: Path, kind: LinkKind = LinkKind.SYMBOLIC) -> LinkFolder:
    return LinkFolder(tmp_path / "view", tmp_path / "record.json", kind)


def refuse(monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, refused)


def test_on_another_file_system_a_hard_link_becomes_a_symbolic_one(
    tmp_path: Path, content: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "link", errno.EXDEV)
    links = folder(tmp_path, LinkKind.HARD)

    right = links.follow({"a": content})
    again = folder(tmp_path, LinkKind.HARD).follow({})

    assert right == frozenset({"a"})
    assert not again
    assert not list((tmp_path / "view").iterdir())


def test_where_there_are_no_links_at_all_the_error_says_what_to_do(
    tmp_path: Path, content: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "link", errno.EXDEV)
    refuse(monkeypatch, "symlink", errno.EPERM)

    with pytest.raises(OSError, match="choose a folder on the models' file system"):
        folder(tmp_path, LinkKind.HARD).follow({"a": content})

    assert not list((tmp_path / "view").iterdir())


@pytest.mark.parametrize("kind", LinkKind)
def test_a_death_before_the_rename_leaves_the_old_link_and_its_owner_known(
    tmp_path: Path, content: Path, monkeypatch: pytest.MonkeyPatch, kind: LinkKind
) -> None:
    folder(tmp_path, kind).follow({"a": content})
    newer = tmp_path / "newer"
    newer.write_bytes(b"newer")
    rename = Path.replace

    def die(path: Path, target: Path) -> Path:
        if target.parent == tmp_path / "view":
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as dying:
        dying.setattr(Path, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            folder(tmp_path, kind).follow({"a": newer})
    before = (tmp_path / "view" / "a").read_bytes()
    folder(tmp_path, kind).follow({"a": newer})
    after = (tmp_path / "view" / "a").read_bytes()
    folder(tmp_path, kind).follow({})

    assert (before, after) == (b"content", b"newer")
    assert not list((tmp_path / "view").iterdir())


def test_without_its_record_an_agent_owns_nothing(tmp_path: Path, content: Path) -> None:
    folder(tmp_path).follow({"a": content})
    (tmp_path / "record.json").write_text("{torn")

    folder(tmp_path).follow({})

    assert (tmp_path / "view" / "a").read_bytes() == b"content"


def test_links_in_a_folder_that_was_used_before_stay_when_another_is_chosen(
    tmp_path: Path, content: Path
) -> None:
    folder(tmp_path).follow({"a": content})

    LinkFolder(tmp_path / "other", tmp_path / "record.json").follow({"a": content})

    assert (tmp_path / "view" / "a").exists()
    assert (tmp_path / "other" / "a").exists()


def test_a_hard_link_whose_content_was_replaced_in_the_store_leads_to_the_new_one(
    tmp_path: Path, content: Path
) -> None:
    links = folder(tmp_path, LinkKind.HARD)
    links.follow({"a": content})
    repaired = tmp_path / "repaired"
    repaired.write_bytes(b"repaired")
    repaired.replace(content)

    links.follow({"a": content})

    assert (tmp_path / "view" / "a").read_bytes() == b"repaired"
