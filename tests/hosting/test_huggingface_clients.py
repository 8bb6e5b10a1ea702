"""The Hub's own clients against the hub: huggingface_hub and the `hf` program."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import (
    HfApi,
    HfFileSystem,
    constants,
    hf_hub_download,
    scan_cache_dir,
    snapshot_download,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder

from tests.fakes.hub import FaultyHub, make_repo
from tests.hosting.conftest import MODEL, REPO, Models, http


@pytest.fixture(autouse=True)
def client_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client finds in its cache what it would ask huggingface.co for in the background."""
    cached = tmp_path / "harnesses.json"
    cached.write_text('{"standardEnvVars": [], "harnesses": {}}')
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(cached))


@pytest.fixture
def api(hub: FaultyHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=False)


@pytest.fixture(params=[False, True], ids=["direct", "signed"])
def any_hub(request: pytest.FixtureRequest, hub: FaultyHub, signing_hub: FaultyHub) -> FaultyHub:
    return signing_hub if request.param else hub


def test_list_models_finds_names_files_and_commits(api: HfApi, models: Models) -> None:
    make_repo(models.folder, "other/text", {"README.md": b"no model\n"})

    (found,) = api.list_models(filter="gguf", expand=["siblings", "sha", "downloads", "gated"])

    assert found.id == REPO
    assert found.sha == api.model_info(REPO).sha
    assert sorted(file.rfilename for file in found.siblings or []) == sorted(models.contents)


def test_list_models_walks_all_pages(api: HfApi, hub: FaultyHub, models: Models) -> None:
    for number in range(7):
        make_repo(models.folder, f"many/model-{number}", {"m.gguf": 10})

    pages = http.get(f"{hub.url}/api/models?limit=3&author=many")
    following = pages.links["next"]["url"]
    found = [model.id for model in api.list_models(author="many", sort="last_modified", limit=5)]

    assert len(pages.json()) == 3
    assert len(http.get(following).json()) == 3
    assert len(set(found)) == 5


def test_model_info_tells_sizes_and_digests(api: HfApi, models: Models) -> None:
    info = api.model_info(REPO, files_metadata=True)

    files = {file.rfilename: file for file in info.siblings or []}
    lfs = files[MODEL].lfs
    assert lfs is not None
    assert lfs.sha256 == hashlib.sha256(models.contents[MODEL]).hexdigest()
    assert {name: file.size for name, file in files.items()} == {
        name: len(content) for name, content in models.contents.items()
    }
    assert files["README.md"].lfs is None
    assert (
        files["README.md"].blob_id == "14d286ebf3febd1e7319ce671d8d399dfe187ee4"
    )  # by `git hash-object`


@pytest.mark.parametrize("revision", ["main", "refs/heads/main", None])
def test_a_branch_resolves_to_the_commit(api: HfApi, revision: str | None) -> None:
    (main,) = api.list_repo_refs(REPO).branches

    info = api.model_info(REPO, revision=revision)

    assert info.sha == main.target_commit
    assert api.model_info(REPO, revision=info.sha).sha == info.sha


def test_the_tree_lists_folders_and_files_at_every_depth(api: HfApi) -> None:
    top = [entry.path for entry in api.list_repo_tree(REPO)]
    below = list(api.list_repo_tree(REPO, "sub folder", recursive=True, expand=True))

    assert top == ["README.md", "sub folder", MODEL]
    assert [(type(entry), entry.path) for entry in below] == [
        (RepoFolder, "sub folder/deep"),
        (RepoFile, "sub folder/deep/more.txt"),
        (RepoFile, "sub folder/notes ü.txt"),
    ]
    assert all(entry.last_commit for entry in below)


def test_paths_info_answers_for_files_and_folders_that_exist(api: HfApi) -> None:
    infos = api.get_paths_info(REPO, [MODEL, "sub folder", "absent"], expand=True)

    assert [info.path for info in infos] == [MODEL, "sub folder"]


def test_auth_check_passes_for_a_repository_that_exists(api: HfApi) -> None:
    api.auth_check(REPO)

    with pytest.raises(RepositoryNotFoundError):
        api.auth_check("acme/absent")


def test_one_file_is_downloaded_under_its_digest(
    any_hub: FaultyHub, models: Models, tmp_path: Path
) -> None:
    path = Path(
        hf_hub_download(
            REPO, MODEL, endpoint=any_hub.url, cache_dir=tmp_path / "cache", token=False
        )
    )

    assert path.read_bytes() == models.contents[MODEL]
    assert path.resolve().name == hashlib.sha256(models.contents[MODEL]).hexdigest()


def test_a_whole_repository_is_downloaded(
    any_hub: FaultyHub, models: Models, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"

    folder = Path(snapshot_download(REPO, endpoint=any_hub.url, cache_dir=cache, token=False))

    assert {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    } == models.contents
    (cached,) = scan_cache_dir(cache).repos
    assert cached.repo_id == REPO
    assert list(cached.refs) == ["main"]


def test_the_file_system_reads_parts(any_hub: FaultyHub, models: Models) -> None:
    files = HfFileSystem(endpoint=any_hub.url, token=False, skip_instance_cache=True)

    listed = files.ls(f"{REPO}/sub folder", detail=False)
    part = files.cat_file(f"{REPO}/{MODEL}", start=1000, end=2000)

    assert listed == [f"{REPO}/sub folder/deep", f"{REPO}/sub folder/notes ü.txt"]
    assert part == models.contents[MODEL][1000:2000]


def test_what_is_missing_has_the_right_exception(
    api: HfApi, hub: FaultyHub, tmp_path: Path
) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("acme/absent")
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info(REPO)
    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision="absent")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision="0" * 40)
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download(REPO, "absent.gguf", endpoint=hub.url, cache_dir=tmp_path, token=False)
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(REPO, "absent"))
    with pytest.raises(HfHubHTTPError):
        api.whoami(token="hf_unknown")


def test_a_gated_repository_is_told_from_an_absent_one(hub: FaultyHub, tmp_path: Path) -> None:
    hub.gate(REPO, "secret")

    with pytest.raises(GatedRepoError):
        hf_hub_download(REPO, MODEL, endpoint=hub.url, cache_dir=tmp_path, token=False)
    path = hf_hub_download(REPO, MODEL, endpoint=hub.url, cache_dir=tmp_path, token="secret")

    assert Path(path).exists()
    (listed,) = HfApi(endpoint=hub.url, token=False).list_models(expand=["gated"])
    assert listed.gated == "manual"


def test_the_hf_program_lists_and_downloads(
    any_hub: FaultyHub, models: Models, tmp_path: Path
) -> None:
    def hf(*arguments: str) -> str:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "HF_HOME": str(tmp_path / "home"),
            "HF_ENDPOINT": any_hub.url,
            "HF_HUB_DISABLE_XET": "1",
        }
        program = str(Path(sys.executable).with_name("hf"))
        return subprocess.run(
            [program, *arguments], env=environment, check=True, capture_output=True, text=True
        ).stdout

    listed = json.loads(hf("models", "ls", "--search", "TINY", "--format", "json"))
    path = hf("download", REPO, MODEL, "--quiet").strip()

    assert [model["id"] for model in listed] == [REPO]
    assert Path(path).read_bytes() == models.contents[MODEL]
