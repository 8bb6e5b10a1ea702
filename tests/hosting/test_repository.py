"""The folder as repositories: commits, changes while serving, what is not served."""

import os
import shutil
from pathlib import Path

import httpx
import pytest

from tests.fakes.hub import FaultyHub, make_repo
from tests.hosting.conftest import MODEL, REPO, Models, http
from tests.support import eventually


def commit(hub: FaultyHub, repo: str = REPO) -> str:
    response = http.get(f"{hub.url}/api/models/{repo}")
    response.raise_for_status()
    return str(response.json()["sha"])


def resolve(hub: FaultyHub, name: str, revision: str = "main") -> httpx.Response:
    return http.get(f"{hub.url}/{REPO}/resolve/{revision}/{name}")


def files(hub: FaultyHub, repo: str = REPO) -> set[str]:
    return {
        file["rfilename"] for file in http.get(f"{hub.url}/api/models/{repo}").json()["siblings"]
    }


def test_a_large_new_repository_is_asked_for_again_later(models: Models) -> None:
    with FaultyHub(models.folder, digest_wait=0.0) as hub:
        make_repo(models.folder, "new/large", {"m.gguf": 1})
        os.truncate(models.folder / "new/large/m.gguf", 50_000_000)  # a while to read

        first = http.get(f"{hub.url}/api/models/new/large")
        listed = http.get(f"{hub.url}/api/models?author=new&expand=sha&expand=siblings").json()
        eventually(lambda: http.get(f"{hub.url}/api/models/new/large").status_code == 200)

    assert first.status_code == 503
    assert int(first.headers["Retry-After"]) > 0
    assert [model["siblings"] for model in listed] == [[{"rfilename": "m.gguf"}]]


def test_the_same_content_is_the_same_commit_everywhere(models: Models, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(models.folder, copy)

    with FaultyHub(models.folder) as first, FaultyHub(copy) as second:
        assert commit(first) == commit(second)


def test_a_changed_folder_is_a_new_commit(hub: FaultyHub, models: Models) -> None:
    seen = [commit(hub)]
    readme = models.folder / REPO / "README.md"

    readme.write_text("# Changed\n")
    seen.append(commit(hub))
    readme.rename(readme.with_name("READ.md"))
    seen.append(commit(hub))
    (models.folder / REPO / "more.gguf").write_bytes(b"more")
    seen.append(commit(hub))

    assert len(set(seen)) == 4


def test_a_new_repository_needs_no_restart(hub: FaultyHub, models: Models) -> None:
    absent = http.get(f"{hub.url}/api/models/new/model")
    make_repo(models.folder, "new/model", {"m.gguf": 10})

    present = http.get(f"{hub.url}/api/models/new/model")

    assert (absent.status_code, present.status_code) == (404, 200)


def test_an_older_commit_serves_what_is_still_there(hub: FaultyHub, models: Models) -> None:
    old = commit(hub)
    (models.folder / REPO / "README.md").write_text("# Changed\n")
    (models.folder / REPO / MODEL).rename(models.folder / REPO / "renamed.gguf")
    new = commit(hub)

    model, readme = resolve(hub, MODEL, old), resolve(hub, "README.md", old)
    tree = http.get(f"{hub.url}/api/models/{REPO}/tree/{old}").json()

    assert old != new
    assert model.content == models.contents[MODEL]
    assert model.headers["X-Repo-Commit"] == old
    assert (readme.status_code, readme.headers["X-Error-Code"]) == (404, "EntryNotFound")
    assert MODEL in {entry["path"] for entry in tree}
    assert resolve(hub, MODEL).status_code == 404


def test_an_older_commit_survives_a_restart(models: Models) -> None:
    with FaultyHub(models.folder) as hub:
        old = commit(hub)
    (models.folder / REPO / "README.md").write_text("# Changed\n")

    with FaultyHub(models.folder) as hub:
        assert resolve(hub, MODEL, old).content == models.contents[MODEL]


def test_a_commit_that_is_gone_entirely_is_unknown(hub: FaultyHub, models: Models) -> None:
    old = commit(hub)
    shutil.rmtree(models.folder / REPO)
    make_repo(models.folder, REPO, {"other.gguf": 10})

    response = resolve(hub, MODEL, old)

    assert (response.status_code, response.headers["X-Error-Code"]) == (404, "RevisionNotFound")


def test_digests_are_remembered_across_restarts(models: Models) -> None:
    with FaultyHub(models.folder) as hub:
        first = commit(hub)
    path = models.folder / REPO / MODEL
    before = path.stat()
    path.write_bytes(bytes(before.st_size))  # same size and, below, same time: not read again
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    with FaultyHub(models.folder) as hub:
        assert commit(hub) == first


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"version": 99}', b'{"version":1,"digests":{"a":1}}']
)
def test_a_damaged_memory_costs_a_second_reading_only(models: Models, damage: bytes) -> None:
    with FaultyHub(models.folder) as hub:
        first = commit(hub)
    for name in ("digests.json", "commits.json"):
        (models.folder / ".llm-router-hub" / name).write_bytes(damage)

    with FaultyHub(models.folder) as hub:
        assert commit(hub) == first


def test_a_folder_without_room_for_a_memory_is_served_all_the_same(models: Models) -> None:
    (models.folder / ".llm-router-hub").write_text("in the way")

    with FaultyHub(models.folder) as hub:
        assert resolve(hub, MODEL).content == models.contents[MODEL]


def test_hidden_and_unfinished_files_are_not_served(hub: FaultyHub, models: Models) -> None:
    names: dict[str, bytes | int] = {
        ".secret": b"x",
        ".git/config": b"x",
        ".cache/huggingface/x": b"x",
        "m.gguf.incomplete": b"x",
        "m.gguf.part": b"x",
        "notes.txt~": b"x",
        ".gitattributes": b"x",
    }
    make_repo(models.folder, REPO, names)

    assert files(hub) == {*models.contents, ".gitattributes"}
    assert resolve(hub, ".secret").status_code == 404


def test_links_are_followed_inside_the_folder_only(
    hub: FaultyHub, models: Models, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret.txt").write_text("secret")
    repo = models.folder / REPO
    (repo / "stolen.txt").symlink_to(tmp_path / "outside/secret.txt")
    (repo / "stolen").symlink_to(tmp_path / "outside")
    (repo / "dangling").symlink_to(tmp_path / "absent")
    (repo / "loop").symlink_to(repo)
    (repo / "itself").symlink_to("itself")
    (models.folder / "itself").symlink_to("itself")
    (repo / "same.gguf").symlink_to(MODEL)
    (models.folder / "foreign").symlink_to(tmp_path / "outside")
    (models.folder / "acme/alias").symlink_to(repo)

    served = files(hub)

    assert served == {*models.contents, "same.gguf"}
    assert resolve(hub, "same.gguf").content == models.contents[MODEL]
    assert resolve(hub, "stolen/secret.txt").status_code == 404
    assert "acme/alias" in [m["id"] for m in http.get(f"{hub.url}/api/models").json()]


def test_names_that_are_not_repositories_are_passed_over(hub: FaultyHub, models: Models) -> None:
    for repo in ("-bad/model", "good/a--b", "good/.hidden", ".hidden/model"):
        make_repo(models.folder, repo, {"m.gguf": 1})
    (models.folder / "good/empty").mkdir()
    (models.folder / "good/file.gguf").write_bytes(b"x")
    (models.folder / "file.gguf").write_bytes(b"x")

    assert [m["id"] for m in http.get(f"{hub.url}/api/models").json()] == [REPO]


def test_a_file_whose_name_cannot_be_written_is_passed_over(hub: FaultyHub, models: Models) -> None:
    repo = os.fsencode(models.folder / REPO)
    for name in (b"\xff.gguf", b"two\nlines.gguf", b"back\\slash.gguf"):
        with open(repo + b"/" + name, "wb") as file:  # noqa: PTH123 - a name no Path can hold
            file.write(b"x")

    assert files(hub) == set(models.contents)
