"""Fixtures of the end-to-end tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo.processes import Daemons
from tests.e2e.site import Site, environment


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site in which nothing runs yet; whatever was started is ended."""
    with Daemons(tmp_path, environment()) as daemons:
        site = Site(tmp_path, daemons)
        with site.client:
            yield site
