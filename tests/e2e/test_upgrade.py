"""A newer commit on the Hub, taken in by real processes."""

import hashlib
import subprocess
from pathlib import Path
from typing import Any

from huggingface_hub import scan_cache_dir

from deploy.demo.models import MIB, make_shards
from tests.e2e.site import SCRIPTS, Site, environment
from tests.support import eventually

REPO = "tiny-org/tiny-llama-GGUF"


def replace_end(file: Path, value: int) -> None:
    """Another content of the same size."""
    content = bytearray(file.read_bytes())
    content[-1] = value
    file.write_bytes(content)


def on_node(site: Site) -> dict[str, set[str]]:
    """What the node shows: by name of the file the digests of its versions."""
    shown: dict[str, set[str]] = {}
    for path in site.models_dir("atlas").glob("models--*/snapshots/*/*.gguf"):
        shown.setdefault(path.name, set()).add(hashlib.sha256(path.read_bytes()).hexdigest())
    return shown


def state(site: Site, name: str) -> tuple[str, bool]:
    """The model's state on the node, and whether `/v1/models` says that it is ready."""
    [node] = site.get(f"/api/models/{name}")["nodes"]
    return node["status"], site.get(f"/v1/models/{name}")["ready"]


def changed(answer: Any) -> list[str]:
    """The paths of the files that an answer names."""
    return [change["path"] for change in answer["changes"]]


def test_nodes_fetch_only_what_a_newer_commit_changed(site: Site) -> None:
    shards = make_shards(site.catalog / REPO, "tiny-llama-Q8_0", size_bytes=3 * MIB)
    second = shards[1]
    old = hashlib.sha256(second.read_bytes()).hexdigest()
    name = f"hf/{REPO}/{shards[0].name}"
    site.start_hub()
    site.start_router()
    site.start_agent("atlas")
    site.wait_for_node("atlas")
    site.cli("model", "add", f"{REPO}:Q8_0")
    site.cli("model", "download", f"{REPO}:Q8_0", "--all")
    assert site.cli_json("model", "outdated") == {"models": [], "unchecked": []}
    served = {shard.name: site.bytes_served(shard.name) for shard in shards}

    replace_end(second, 1)
    [outdated] = site.cli_json("model", "outdated")["models"]
    upgraded = site.cli_json("model", "upgrade", f"{REPO}:Q8_0")
    after_upgrade = state(site, name)
    site.cli("model", "upgrade", f"{REPO}:Q8_0", expect=4)
    site.cli("model", "download", f"{REPO}:Q8_0", "--all")

    assert (outdated["name"], changed(outdated)) == (name, [second.name])
    assert outdated["download_bytes"] == second.stat().st_size
    assert changed(upgraded) == [second.name]
    assert after_upgrade == ("missing", False)
    eventually(lambda: state(site, name) == ("ready", True))
    fetched = {shard.name: site.bytes_served(shard.name) - served[shard.name] for shard in shards}
    assert fetched == {
        shard.name: shard.stat().st_size if shard == second else 0 for shard in shards
    }
    new = hashlib.sha256(second.read_bytes()).hexdigest()
    assert on_node(site)[second.name] == {old, new}  # the earlier commit stays as a revision
    [cached] = scan_cache_dir(site.models_dir("atlas")).repos
    refs = {revision.commit_hash: set(revision.refs) for revision in cached.revisions}
    assert refs == {outdated["commit"]: set(), outdated["newest_commit"]: {"main"}}

    prune = [str(SCRIPTS / "hf"), "cache", "prune", "--yes", "--cache-dir"]
    subprocess.run([*prune, str(site.models_dir("atlas"))], check=True, env=environment())

    assert on_node(site) == {
        shard.name: {hashlib.sha256(shard.read_bytes()).hexdigest()} for shard in shards
    }
