"""The real router over HTTP. Tests of one file share the hub."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from router.config import Timers
from tests.fakes.hub import FaultyHub, make_repo
from tests.fakes.running_router import RunningRouter

REPO = "owner/tiny-GGUF"
FILE = "Q4/tiny-Q4_K_M.gguf"
NAME = f"hf/{REPO}/{FILE}"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyHub]:
    """Some repositories of small files."""
    folder = tmp_path_factory.mktemp("hub")
    make_repo(folder, REPO, {FILE: 1000, "tiny-Q8_0.gguf": 2000})
    for number in range(3):
        make_repo(folder, f"owner/spare-{number}-GGUF", {"spare-Q8_0.gguf": 500 + number})
    make_repo(folder, "owner/raw", {"model.safetensors": 700, "config.json": b"{}"})
    make_repo(folder, "owner/gated-GGUF", {"gated-Q8_0.gguf": 300})
    with FaultyHub(folder) as running:
        running.gate("owner/gated-GGUF", "a token that the router lacks")
        yield running


@pytest.fixture(scope="module")
def shared_router(
    hub: FaultyHub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningRouter]:
    """One router for the tests of a file."""
    folder = tmp_path_factory.mktemp("router")
    timers = Timers(lease=60.0, event_comment=0.1)
    with RunningRouter(folder, hub.url, timers=timers, max_watches=2) as running:
        yield running


@pytest.fixture
def router(shared_router: RunningRouter) -> Iterator[RunningRouter]:
    """A router that knows nothing yet."""
    yield shared_router
    shared_router.clear()


@pytest.fixture
def troubled(hub: FaultyHub, tmp_path: Path) -> Iterator[RunningRouter]:
    """A router that may learn to mistrust its hub; the hub is well again afterwards."""
    with RunningRouter(tmp_path, hub.url) as running:
        yield running
    hub.heal()


@pytest.fixture
def http(router: RunningRouter) -> Iterator[httpx.Client]:
    """A client of the router."""
    with httpx.Client(base_url=router.http_url, timeout=20) as client:
        yield client


def register(http: httpx.Client, filename: str = FILE, repo: str = REPO) -> str:
    """Registers a file; the model's id."""
    answer = http.post("/api/models/register", json={"repo": repo, "filename": filename})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["name"])


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error, whose form is checked."""
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    kind = "server_error" if answer.status_code >= 500 else "invalid_request_error"
    assert error["type"] == kind
    return answer.status_code, error["code"]
