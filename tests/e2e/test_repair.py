"""A disk that forgets and files that go, with real processes: what was ordered comes back."""

import hashlib
import os
from pathlib import Path

import pytest

from deploy.demo.models import MIB, make_model
from tests.e2e.site import Site
from tests.support import eventually

REPO = "tiny-org/tiny-llama-GGUF"
FILE = "tiny-Q8_0.gguf"
MODEL = f"{REPO}:Q8_0"


@pytest.fixture
def content(site: Site) -> bytes:
    """A model that `atlas` holds, with a view of it; its agent reads it again all the time."""
    made = make_model(site.catalog / REPO / FILE, "Q8_0", size_bytes=3 * MIB).read_bytes()
    site.start_hub()
    site.start_router()
    view = str(site.folder / "view")
    site.start_agent("atlas", "--scrub-interval", "0.2s", "--view-llama-server", view)
    site.wait_for_node("atlas")
    site.cli("model", "add", MODEL)
    site.cli("model", "download", MODEL, "--all")
    eventually(lambda: status(site) == "ready")
    return made


def status(site: Site) -> str:
    [node] = site.get(f"/api/models/hf/{REPO}/{FILE}")["nodes"] or [{"status": "none"}]
    return str(node["status"])


def blob(site: Site, content: bytes) -> Path:
    digest = hashlib.sha256(content).hexdigest()
    return site.models_dir("atlas") / f"models--{REPO.replace('/', '--')}" / "blobs" / digest


def is_back(site: Site, content: bytes) -> bool:
    link = site.folder / "view" / FILE
    return (
        status(site) == "ready"
        and blob(site, content).exists()
        and blob(site, content).read_bytes() == content
        and link.exists()
        and link.read_bytes() == content
    )


def completed(site: Site) -> int:
    return len([t for t in site.get("/api/tasks")["tasks"] if t["status"] == "completed"])


def test_a_flipped_bit_is_found_and_repaired_without_anybody_asking(
    site: Site, content: bytes
) -> None:
    place = blob(site, content)
    before = place.stat()
    with place.open("r+b") as file:
        file.seek(MIB)
        file.write(bytes([content[MIB] ^ 1]))
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))

    eventually(lambda: completed(site) == 2 and is_back(site, content), within_seconds=60)


def test_a_file_that_was_deleted_on_the_node_comes_back_and_an_evicted_one_does_not(
    site: Site, content: bytes
) -> None:
    blob(site, content).unlink()
    eventually(lambda: completed(site) == 2 and is_back(site, content), within_seconds=60)

    site.cli("node", "evict", "atlas", MODEL)

    eventually(lambda: not blob(site, content).exists() and status(site) == "none")
    eventually(lambda: not list((site.folder / "view").iterdir()))
    assert len(site.get("/api/tasks")["tasks"]) == 2
