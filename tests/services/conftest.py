"""A world for each test."""

from pathlib import Path

import pytest

from tests.services.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """The services over an empty store."""
    return World(tmp_path)
