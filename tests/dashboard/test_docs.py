"""The page at `/docs`, made in the browser from the router's own description."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.dashboard.browser import watched_page
from tests.fakes.running_router import RunningRouter


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRouter]:
    """The real router; no hub is needed."""
    folder: Path = tmp_path_factory.mktemp("router")
    with RunningRouter(folder, "http://127.0.0.1:9") as running:
        yield running


@pytest.fixture
def docs(browser: Browser, router: RunningRouter) -> Iterator[Page]:
    """The page, which must not complain."""
    with watched_page(browser) as page:
        page.goto(f"{router.http_url}/docs")
        yield page


def test_every_request_is_shown_with_its_parameters_body_and_answers(
    router: RunningRouter, docs: Page
) -> None:
    document = httpx.get(f"{router.http_url}/openapi.json").json()
    requests = sum(len(methods) for methods in document["paths"].values())

    expect(docs.locator(".docs-body .docs-method")).to_have_count(requests)
    order = docs.locator("#post-api-models-download")
    expect(order).to_contain_text("POST/api/models/download")
    expect(order).to_contain_text("idempotency-key")
    expect(order.locator("tr", has_text="model_name")).to_contain_text("string")
    expect(order).to_contain_text("202")
    expect(docs.locator("#version")).to_contain_text(document["info"]["version"])


def test_the_name_of_an_object_leads_to_its_fields(docs: Page) -> None:
    docs.locator("#get-api-nodes").get_by_role("link", name="NodeList").click()

    expect(docs.locator("#object-nodelist")).to_be_in_viewport()
    expect(docs.locator("#object-nodelist")).to_contain_text("list of NodeShape")


def test_every_link_on_the_page_leads_somewhere(docs: Page) -> None:
    expect(docs.locator("#objects")).to_be_attached()

    targets = docs.locator("main a").evaluate_all(
        "links => links.map(link => link.getAttribute('href'))"
    )

    assert targets
    for target in set(targets):
        assert docs.locator(f"[id='{target.removeprefix('#')}']").count() == 1, target


def test_it_fits_a_phone(browser: Browser, router: RunningRouter) -> None:
    with watched_page(browser, width=360, height=740) as page:
        page.goto(f"{router.http_url}/docs")
        expect(page.locator("#objects")).to_be_attached()

        width = page.evaluate("document.documentElement.scrollWidth")

    assert width <= 360


def test_a_router_that_does_not_answer_is_named_as_the_reason(
    browser: Browser, router: RunningRouter
) -> None:
    with watched_page(browser) as page:
        page.route("**/openapi.json", lambda route: route.fulfill(status=503))
        page.goto(f"{router.http_url}/docs")

        expect(page.locator("#state")).to_contain_text("/openapi.json answered 503")
