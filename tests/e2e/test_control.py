"""What an operator can do with a running download, with real processes."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.demo.models import MIB, make_model, make_shards
from tests.e2e.site import Site, kill
from tests.support import eventually

REPO = "tiny-org/tiny-llama-GGUF"


def start(site: Site, *flags: str) -> None:
    """Hub, router, and one agent called atlas."""
    site.start_hub()
    site.start_router()
    site.start_agent("atlas", *flags)
    site.wait_for_node("atlas")


def order(site: Site, quantization: str, *flags: str) -> str:
    """Orders one quantization onto all nodes; the id of the one task."""
    model = f"{REPO}:{quantization}"
    site.cli("model", "add", model)
    before = {task["id"] for task in site.get("/api/tasks")["tasks"]}
    site.cli("model", "download", model, "--all", "--detach", *flags)
    [task_id] = {task["id"] for task in site.get("/api/tasks")["tasks"]} - before
    return str(task_id)


def wait_for(site: Site, task_id: str, status: str) -> None:
    """Waits until a task is shown so."""
    eventually(lambda: site.task(task_id)["status"] == status, within_seconds=90)


def wait_for_bytes(site: Site, task_id: str, count: int = 1) -> None:
    """Waits until so many bytes are on the node's disk."""
    eventually(lambda: site.task(task_id)["bytes_done"] >= count, within_seconds=60)


def unfinished_bytes(folder: Path) -> int:
    """The disk that unfinished files take."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*.part"))


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A memory disk of this size; the test is skipped without the right to mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_an_operator_changes_the_rate_of_a_running_download(site: Site) -> None:
    make_model(site.catalog / REPO / "tiny-llama-Q8_0.gguf", size_bytes=16 * MIB)
    start(site, "--max-rate", "64KB")
    task_id = order(site, "Q8_0")
    wait_for_bytes(site, task_id)
    slow = site.task(task_id)

    site.cli("node", "set", "atlas", "--max-rate", "0")
    wait_for(site, task_id, "completed")

    assert slow["status"] == "downloading"
    assert slow["progress"] < 0.5
    assert site.task(task_id)["attempt"] == 1


def test_orders_queue_by_priority_behind_what_runs(site: Site) -> None:
    for quantization in ("Q4_0", "Q5_0", "Q8_0"):
        make_model(site.catalog / REPO / f"tiny-llama-{quantization}.gguf", size_bytes=4 * MIB)
    start(site, "--max-rate", "64KB", "--max-concurrent", "1")
    running = order(site, "Q4_0")
    wait_for_bytes(site, running)
    usual = order(site, "Q5_0")
    urgent = order(site, "Q8_0", "--priority", "5")
    eventually(lambda: "waits for its turn" in site.task(urgent)["note"])
    states = [site.task(task_id)["status"] for task_id in (running, usual, urgent)]

    site.cli("node", "set", "atlas", "--max-rate", "0")
    for task_id in (running, usual, urgent):
        wait_for(site, task_id, "completed")

    ended = sorted((running, usual, urgent), key=lambda one: site.task(one)["completed_at"])
    assert states == ["downloading", "pending", "pending"]
    assert ended == [running, urgent, usual]


def test_cancel_frees_the_disk_and_keeps_the_bytes_when_asked(site: Site) -> None:
    file = make_model(site.catalog / REPO / "tiny-llama-Q8_0.gguf", size_bytes=16 * MIB)
    start(site, "--max-rate", "1MB")
    task_id = order(site, "Q8_0")
    wait_for_bytes(site, task_id, 3 * MIB)

    site.cli("task", "cancel", task_id, "--keep-partial")
    site.cli("node", "set", "atlas", "--max-rate", "64KB")
    site.cli("task", "retry", task_id)
    wait_for(site, task_id, "downloading")
    gone_on_from = site.task(task_id)["bytes_done"]
    kept = unfinished_bytes(site.models_dir("atlas"))
    site.cli("task", "cancel", task_id)

    eventually(lambda: unfinished_bytes(site.models_dir("atlas")) == 0)
    assert kept >= file.stat().st_size
    assert gone_on_from >= 2 * MIB
    assert site.task(task_id)["status"] == "cancelled"


def test_a_pause_survives_the_death_of_agent_and_router(site: Site) -> None:
    file = make_model(site.catalog / REPO / "tiny-llama-Q8_0.gguf", size_bytes=16 * MIB)
    site.start_hub()
    site.start_router()
    agent = site.start_agent("atlas", "--max-rate", "2MB")
    site.wait_for_node("atlas")
    task_id = order(site, "Q8_0")
    wait_for_bytes(site, task_id, 3 * MIB)
    site.cli("task", "pause", task_id)
    eventually(lambda: unfinished_bytes(site.models_dir("atlas")) > 0)

    kill(agent)
    kill(site.router)
    site.start_router()
    site.start_agent("atlas")
    site.wait_for_node("atlas")
    eventually(lambda: site.task(task_id)["bytes_done"] >= 2 * MIB, within_seconds=60)
    paused = site.task(task_id)
    served = site.bytes_served(file.name)
    site.cli("task", "resume", task_id)
    wait_for(site, task_id, "completed")

    assert paused["status"] == "paused"
    assert site.task(task_id)["attempt"] == 1
    assert site.bytes_served(file.name) - served < file.stat().st_size


def test_a_full_disk_is_shown_and_the_task_goes_on_when_there_is_room(
    site: Site, tmp_path: Path
) -> None:
    make_shards(site.catalog / REPO, "tiny-llama-Q8_0", size_bytes=8 * MIB)
    with small_disk(site.models_dir("atlas"), 14 * MIB) as disk:
        start(site, "--max-rate", "200KB")
        task_id = order(site, "Q8_0")
        wait_for_bytes(site, task_id)
        filler = disk / "somebody else's"
        filler.write_bytes(bytes(shutil.disk_usage(disk).free - MIB))
        site.cli("node", "set", "atlas", "--max-rate", "0")

        eventually(lambda: "disk_full" in site.task(task_id)["note"], within_seconds=60)
        full = site.task(task_id)
        site.wait_for_node("atlas")
        filler.unlink()
        wait_for(site, task_id, "completed")

        assert full["status"] == "downloading"
        assert full["error"] is None
        assert site.task(task_id)["attempt"] == 1


def test_a_model_that_does_not_fit_is_refused_before_its_first_byte(site: Site) -> None:
    make_model(site.catalog / REPO / "tiny-llama-Q4_0.gguf", size_bytes=8 * MIB)
    make_model(site.catalog / REPO / "tiny-llama-Q8_0.gguf", size_bytes=9 * MIB)
    with small_disk(site.models_dir("atlas"), 12 * MIB):
        start(site, "--max-rate", "64KB")
        running = order(site, "Q4_0")
        wait_for_bytes(site, running)
        too_much = site.client.post(
            "/api/models/register", json={"repo": REPO, "filename": "tiny-llama-Q8_0.gguf"}
        ).json()["name"]
        answer = site.client.post(
            "/api/models/download", json={"model_name": too_much, "target": "all"}
        )
        if answer.status_code == 202:  # the router has not heard yet how little room is left
            [task_id] = answer.json()["task_ids"]
            wait_for(site, task_id, "failed")
            message = site.task(task_id)["error"]["message"]
        else:
            assert answer.status_code == 507
            message = answer.json()["error"]["message"]

        assert "needs" in message or "bytes" in message
        assert site.bytes_served("tiny-llama-Q8_0.gguf") < MIB  # its header alone was read
        assert site.task(running)["status"] == "downloading"
