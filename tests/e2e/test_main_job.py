"""The main job with real processes: over the command line and REST, through crashes."""

import hashlib
from pathlib import Path

from huggingface_hub import hf_hub_download, scan_cache_dir

from deploy.demo.models import MIB, make_model, make_shards
from tests.e2e.site import Site, kill
from tests.support import eventually

REPO = "tiny-org/tiny-llama-GGUF"
FILE = "tiny-llama-Q8_0.gguf"
NAME = f"hf/{REPO}/{FILE}"


def arrived(site: Site, node: str, filename: str) -> Path:
    """The one file of that name in a node's Hugging Face cache."""
    [path] = site.models_dir(node).glob(f"models--*/snapshots/*/**/{filename}")
    return path


def digest(path: Path) -> str:
    """SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def order(site: Site, *nodes: str) -> list[str]:
    """Orders the model over REST; the ids of the tasks."""
    target = {"target": "specific", "node_ids": nodes} if nodes else {"target": "all"}
    answer = site.client.post("/api/models/download", json={"model_name": NAME, **target})
    assert answer.status_code == 202, answer.text
    return list(answer.json()["task_ids"])


def wait_until_downloading(site: Site, task_id: str, *, beyond: float = 0.05) -> None:
    """Waits until that part of the bytes is there, and some are not."""
    eventually(lambda: beyond < site.task(task_id)["progress"] < 0.9, within_seconds=60)


def wait_until_completed(site: Site, task_id: str) -> None:
    """Waits for the true end."""
    eventually(lambda: site.task(task_id)["status"] == "completed", within_seconds=90)


def test_an_operator_brings_a_sharded_model_onto_all_nodes(site: Site) -> None:
    shards = make_shards(site.catalog / REPO, "tiny-llama-Q8_0", size_bytes=3 * MIB)
    site.start_hub("--signed-urls")
    site.start_router()
    for name in ("atlas", "boreas"):
        site.start_agent(name)
        site.wait_for_node(name)

    [found] = site.cli_json("model", "list", "--search", "tiny")["models"]
    site.cli("model", "add", f"{REPO}:Q8_0")
    site.cli("model", "download", f"{REPO}:Q8_0", "--all")

    assert found["size_bytes"] == sum(shard.stat().st_size for shard in shards)
    for name in ("atlas", "boreas"):
        for shard in shards:
            assert digest(arrived(site, name, shard.name)) == digest(shard)
    [listed] = site.get("/v1/models")["data"]
    assert (listed["id"], listed["ready_nodes"]) == (f"hf/{REPO}/{shards[0].name}", 2)


def test_a_node_is_a_hugging_face_cache_and_is_not_filled_twice(site: Site) -> None:
    file = make_model(site.catalog / REPO / FILE, size_bytes=MIB)
    site.start_hub()
    site.start_router()
    site.start_agent("atlas")
    site.wait_for_node("atlas")
    site.client.post("/api/models/register", json={"repo": REPO, "filename": FILE})
    wait_until_completed(site, order(site, "atlas")[0])
    served = site.bytes_served(FILE)

    [again] = order(site, "atlas")
    wait_until_completed(site, again)

    assert site.bytes_served(FILE) == served
    assert site.task(again)["bytes_from"]["disk"] == file.stat().st_size
    cache = scan_cache_dir(site.models_dir("atlas"))
    assert [repo.repo_id for repo in cache.repos] == [REPO]
    assert not cache.warnings
    local = hf_hub_download(REPO, FILE, cache_dir=site.models_dir("atlas"), local_files_only=True)
    assert digest(Path(local)) == digest(file)


def test_a_killed_agent_resumes_and_the_hub_serves_little_twice(site: Site) -> None:
    file = make_model(site.catalog / REPO / FILE, size_bytes=32 * MIB)
    site.start_hub()
    site.start_router()
    agent = site.start_agent("atlas", "--max-rate", "6MB")
    site.wait_for_node("atlas")
    site.client.post("/api/models/register", json={"repo": REPO, "filename": FILE})
    [task_id] = order(site, "atlas")
    wait_until_downloading(site, task_id, beyond=0.6)

    kill(agent)
    site.wait_for_node("atlas", "offline")
    served = site.bytes_served(FILE)
    site.start_agent("atlas")
    wait_until_completed(site, task_id)

    assert digest(arrived(site, "atlas", FILE)) == digest(file)
    assert site.task(task_id)["attempt"] == 1
    assert site.bytes_served(FILE) - served < file.stat().st_size  # it did not start over


def test_a_killed_router_loses_nothing_and_the_agent_goes_on(site: Site) -> None:
    file = make_model(site.catalog / REPO / FILE, size_bytes=16 * MIB)
    site.start_hub()
    site.start_router()
    site.start_agent("atlas", "--max-rate", "6MB")
    site.wait_for_node("atlas")
    site.client.post("/api/models/register", json={"repo": REPO, "filename": FILE})
    [task_id] = order(site, "atlas")
    wait_until_downloading(site, task_id)

    kill(site.router)
    eventually(
        lambda: list(site.models_dir("atlas").glob("models--*/snapshots/*/*")), within_seconds=60
    )
    site.start_router()

    wait_until_completed(site, task_id)
    assert digest(arrived(site, "atlas", FILE)) == digest(file)
    assert site.bytes_served(FILE) < 1.5 * file.stat().st_size  # nor did the agent start over
    [listed] = site.get("/v1/models")["data"]
    assert (listed["id"], listed["ready"]) == (NAME, True)


def test_an_offline_node_waits_and_disturbs_nobody(site: Site) -> None:
    make_model(site.catalog / REPO / FILE, size_bytes=MIB)
    site.start_hub()
    site.start_router()
    away = site.start_agent("boreas")
    site.start_agent("atlas")
    site.wait_for_node("atlas")
    site.wait_for_node("boreas")
    site.client.post("/api/models/register", json={"repo": REPO, "filename": FILE})
    kill(away)
    site.wait_for_node("boreas", "offline")

    tasks = {site.task(task_id)["node_name"]: task_id for task_id in order(site)}
    wait_until_completed(site, tasks["atlas"])
    waiting = site.task(tasks["boreas"])
    site.start_agent("boreas")
    wait_until_completed(site, tasks["boreas"])

    assert (waiting["status"], waiting["node_online"]) == ("pending", False)
