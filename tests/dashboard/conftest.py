"""One browser for all tests of the dashboard; a page and an API for each."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.dashboard.browser import chromium, watched_page
from tests.dashboard.fake_api import FakeApi, serving


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A headless Chromium; gone after this folder, because its event loop is in others' way."""
    with chromium() as running:
        yield running


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """An API that knows nothing yet."""
    with serving(FakeApi()) as fake:
        yield fake


@pytest.fixture
def page(browser: Browser, api: FakeApi) -> Iterator[Page]:
    """A page that must not complain; made after the API, so that it goes first."""
    with watched_page(browser) as fresh:
        yield fresh
