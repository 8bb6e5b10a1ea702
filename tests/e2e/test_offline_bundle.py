"""Models travel in one file to a site without a line."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from deploy.demo.processes import Daemons
from protos.llmrouter.v1 import registration_pb2, registration_pb2_grpc
from tests.e2e.site import Site, environment, kill
from tests.fakes.hub import make_repo
from tests.support import eventually

REPO = "owner/tiny-GGUF"
MODEL = f"{REPO}:Q4_K_M"
FILE = "tiny-Q4_K_M.gguf"
NAME = f"hf/{REPO}/{FILE}"
SIZE = 3 * (1 << 20) + 77
NOBODY = "http://127.0.0.1:9"  # nothing listens there


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A bundle that a site with a line wrote, and the content of its model."""
    folder = tmp_path_factory.mktemp("origin")
    with Daemons(folder, environment()) as daemons:
        site = Site(folder, daemons)
        content = make_repo(site.catalog, REPO, {FILE: SIZE})[FILE]
        site.start_hub()
        site.start_router()
        site.start_agent("source")
        site.wait_for_node("source")
        site.cli("model", "add", MODEL)
        site.cli("model", "download", MODEL, "--all")
        bundle = folder / "models.tar"

        told = site.cli_json("model", "export", str(bundle), MODEL)

        assert told["sha256"] == hashlib.sha256(bundle.read_bytes()).hexdigest()
        assert told["size_bytes"] == bundle.stat().st_size
        assert told["models"] == [{"name": NAME, "size_bytes": SIZE}]
        assert not list(folder.glob("*.part"))
        site.cli("model", "export", str(bundle), MODEL, expect=4)
        site.cli("model", "export", str(folder / "x.tar"), "owner/none:Q4_K_M", expect=3)
        assert not list(folder.glob("x.tar*"))
        site.client.close()
    return bundle, content


@pytest.fixture
def offline(site: Site) -> Site:
    """A site whose Hub cannot be reached."""
    site.hub_url = NOBODY
    site.start_router()
    return site


def contents(folder: Path) -> list[Path]:
    """Every file below the router's folder of bundles."""
    return [path for path in (folder / "router-data" / "bundles").rglob("*") if path.is_file()]


def test_a_node_of_a_site_without_a_line_gets_the_model(
    exported: tuple[Path, bytes], offline: Site
) -> None:
    bundle, content = exported
    offline.start_agent("far")
    offline.wait_for_node("far")

    told = offline.cli_json("model", "import", str(bundle))
    offline.cli("model", "download", MODEL, "--all")

    assert told == {
        "models": [{"name": NAME, "size_bytes": SIZE, "already_registered": False}],
        "new_bytes": SIZE,
    }
    found = list(offline.models_dir("far").rglob(FILE))
    assert [path.read_bytes() for path in found] == [content]
    task = offline.get("/api/tasks")["tasks"][0]
    assert (task["status"], task["bytes_from"]["router"]) == ("completed", SIZE)
    again = offline.cli_json("model", "import", str(bundle))
    assert (again["models"][0]["already_registered"], again["new_bytes"]) == (True, 0)
    offline.cli("model", "remove", MODEL)
    eventually(lambda: not contents(offline.folder))


def test_clients_of_the_sites_hub_get_what_was_imported_without_any_node(
    exported: tuple[Path, bytes], offline: Site
) -> None:
    bundle, content = exported
    offline.cli("model", "import", str(bundle))
    path = f"/hub/{REPO}/resolve/main/{FILE}"

    whole = offline.client.get(path)
    part = offline.client.get(path, headers={"Range": "bytes=100-199"})

    assert (whole.status_code, whole.content) == (200, content)
    assert (part.status_code, part.content) == (206, content[100:200])


def test_a_damaged_bundle_leaves_nothing_behind(
    exported: tuple[Path, bytes], offline: Site, tmp_path: Path
) -> None:
    whole = exported[0].read_bytes()
    cut, wrong = tmp_path / "cut.tar", tmp_path / "wrong.tar"
    cut.write_bytes(whole[: len(whole) // 2])
    wrong.write_bytes(whole[:-5000] + bytes([whole[-5000] ^ 1]) + whole[-4999:])

    for damaged in (cut, wrong):
        offline.cli("model", "import", str(damaged), expect=1)

    assert offline.get("/api/models")["models"] == []
    assert contents(offline.folder) == []


def test_a_router_killed_while_a_bundle_comes_in_shows_nothing_of_it(
    exported: tuple[Path, bytes], offline: Site
) -> None:
    whole = exported[0].read_bytes()
    over = threading.Event()

    def half() -> Iterator[registration_pb2.ImportModelsRequest]:
        yield registration_pb2.ImportModelsRequest(data=whole[: len(whole) // 2])
        over.wait(60)

    with grpc.insecure_channel(offline.grpc) as channel:
        stub = registration_pb2_grpc.RegistrationServiceStub(channel)
        coming = stub.ImportModels.future(half())
        eventually(lambda: contents(offline.folder))
        kill(offline.router)
        over.set()
        assert coming.exception() is not None
    offline.start_router()

    assert offline.get("/api/models")["models"] == []
    assert contents(offline.folder) == []
    offline.cli("model", "import", str(exported[0]))
    assert [one["name"] for one in offline.get("/api/models")["models"]] == [NAME]
