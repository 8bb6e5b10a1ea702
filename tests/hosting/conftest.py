"""A running hub over a small folder of models."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.fakes.hub import FaultyHub, make_repo

REPO = "acme/tiny-GGUF"
MODEL = "tiny-Q4_K_M.gguf"

# One client for all tests (its making costs more than a request), one connection for each request.
http = httpx.Client(
    verify=False, trust_env=False, timeout=20, limits=httpx.Limits(max_keepalive_connections=0)
)


@dataclass(frozen=True)
class Models:
    """The served folder, and what its first repository holds."""

    folder: Path
    contents: dict[str, bytes]


@pytest.fixture
def models(tmp_path: Path) -> Models:
    folder = tmp_path / "models"
    files: dict[str, bytes | int] = {
        MODEL: 300_000,
        "README.md": b"# Tiny\n",
        "sub folder/notes ü.txt": b"hello\n",
        "sub folder/deep/more.txt": b"more\n",
    }
    return Models(folder, make_repo(folder, REPO, files))


@pytest.fixture
def hub(models: Models) -> Iterator[FaultyHub]:
    with FaultyHub(models.folder) as running:
        yield running


@pytest.fixture
def signing_hub(models: Models) -> Iterator[FaultyHub]:
    with FaultyHub(models.folder, signed_urls=True) as running:
        yield running
