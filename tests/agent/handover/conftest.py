"""A store to show."""

from pathlib import Path

import pytest

from tests.agent.handover.shelf import Shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """An empty store."""
    return Shelf(tmp_path)
