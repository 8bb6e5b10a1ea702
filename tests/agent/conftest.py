"""What the agent's tests share: the event loop, and repositories to fetch from."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.hub import FaultyHub


@pytest.fixture
def anyio_backend() -> str:
    """The loop that the agent runs in."""
    return "asyncio"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FaultyHub]:
    """A running hub over `tmp_path/"hub"`, empty so far."""
    folder = tmp_path / "hub"
    folder.mkdir()
    with FaultyHub(folder) as hub:
        yield hub
