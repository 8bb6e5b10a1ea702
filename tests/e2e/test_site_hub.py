"""Clients of the Hub, unchanged, against the router: `HF_ENDPOINT=http://router/hub`."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deploy.demo.processes import Daemons
from tests.e2e.site import SCRIPTS, Site, environment
from tests.fakes.hub import make_repo

REPO = "owner/tiny-GGUF"
FILE = "tiny-Q4_K_M.gguf"
SHARDS = "big-Q8_0-0000{}-of-00002.gguf"
MIB = 1 << 20
FILES = {FILE: 5 * MIB, SHARDS.format(1): 3 * MIB, SHARDS.format(2): 2 * MIB, "x-Q2_K.gguf": MIB}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, dict[str, bytes]]]:
    """A slow line to the Hub, a router, one node; two models of a repository are registered."""
    folder = tmp_path_factory.mktemp("site")
    with Daemons(folder, environment()) as daemons:
        site = Site(folder, daemons)
        contents = make_repo(site.catalog, REPO, FILES)
        make_repo(site.catalog, "owner/other-GGUF", {"other-Q4_K_M.gguf": 1000})
        site.start_hub("--max-rate", "4MB")
        site.start_router()
        site.start_agent("node")
        site.wait_for_node("node")
        site.cli("model", "add", f"{REPO}:Q4_K_M")
        site.cli("model", "add", f"{REPO}:Q8_0")
        yield site, contents
        site.client.close()


def endpoint(site: Site) -> str:
    """What clients are told."""
    return f"{str(site.client.base_url).rstrip('/')}/hub"


def hf(site: Site, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Hugging Face's own command line."""
    settings = {"HF_ENDPOINT": endpoint(site), "HF_HOME": str(home), "HF_DEBUG": "1"}
    return subprocess.run(
        [str(SCRIPTS / "hf"), *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        env=environment() | settings,
        check=False,
    )


def test_hf_download_follows_a_file_that_no_node_had(
    shared: tuple[Site, dict[str, bytes]], tmp_path: Path
) -> None:
    site, contents = shared

    done = hf(site, tmp_path / "home", "download", REPO, FILE, "--local-dir", str(tmp_path))

    assert done.returncode == 0, done.stderr
    assert (tmp_path / FILE).read_bytes() == contents[FILE]
    orders = site.get("/api/tasks")["tasks"]
    assert [task["model_name"] for task in orders if FILE in task["model_name"]] == [
        f"hf/{REPO}/{FILE}"
    ]
    served = site.bytes_served(FILE)
    again = hf(site, tmp_path / "again", "download", REPO, FILE)
    assert again.returncode == 0, again.stderr
    assert site.bytes_served(FILE) == served


def test_hf_download_of_a_whole_repository_gets_what_is_registered(
    shared: tuple[Site, dict[str, bytes]], tmp_path: Path
) -> None:
    site, contents = shared

    done = hf(site, tmp_path / "home", "download", REPO, "--local-dir", str(tmp_path / "out"))

    assert done.returncode == 0, done.stderr
    found = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.gguf")}
    assert found == {name: contents[name] for name in contents if not name.startswith("x-")}


def test_hf_says_that_another_repository_is_not_there(
    shared: tuple[Site, dict[str, bytes]], tmp_path: Path
) -> None:
    site, _ = shared

    other = hf(site, tmp_path, "download", "owner/other-GGUF", "other-Q4_K_M.gguf")
    file = hf(site, tmp_path, "download", REPO, "x-Q2_K.gguf")

    assert other.returncode != 0
    assert "RepositoryNotFoundError" in other.stderr
    assert "llm-router model add owner/other-GGUF" in other.stderr
    assert file.returncode != 0
    assert "EntryNotFound" in file.stderr


def test_what_llama_cpp_asks_leads_it_to_every_shard(
    shared: tuple[Site, dict[str, bytes]],
) -> None:
    """The requests of `-hf owner/repo:Q8_0` (b11434: common/hf-cache.cpp, common/download.cpp)."""
    site, contents = shared
    agent = {"User-Agent": "llama-cpp/b11434", "Accept": "application/json"}
    base = endpoint(site) + "/"
    with httpx.Client(headers=agent, follow_redirects=True, timeout=60) as client:
        refs = client.get(f"{base}api/models/{REPO}/refs").json()
        (commit,) = [one["targetCommit"] for one in refs["branches"] if one["name"] == "main"]
        tree = client.get(f"{base}api/models/{REPO}/tree/{commit}?recursive=true").json()
        files = {
            item["path"]: item["lfs"]["oid"]
            for item in tree
            if item["type"] == "file" and re.search(r"Q8_0[.-]", item["path"])
        }
        assert sorted(files) == [SHARDS.format(1), SHARDS.format(2)]

        for path in files:
            url = f"{base}{REPO}/resolve/{commit}/{path}"
            head = client.head(url)
            size = int(head.headers["Content-Length"])
            assert head.status_code == 200
            assert head.headers["Accept-Ranges"] != "none"
            assert head.headers["ETag"]
            # At most three tries, with pauses of 2 and 4 s; the rest of a part by range.
            start = client.get(url, headers={"Range": "bytes=0-999"})
            rest = client.get(url, headers={"Range": "bytes=1000-"})
            assert (start.status_code, rest.status_code) == (206, 206)
            assert len(start.content + rest.content) == size
            assert start.content + rest.content == contents[path]
