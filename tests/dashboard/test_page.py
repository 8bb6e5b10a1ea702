"""The page as a whole: what reaches it, who can use it, on what screen."""

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.dashboard.browser import watched_page
from tests.dashboard.fake_api import FakeApi, model, node, task, variant

EVIL = "<img src=x onerror=alert(1)><b>bold</b>"
QWEN = "hf/qwen/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf"


def fill(api: FakeApi) -> None:
    """One of everything, with names as long as they come."""
    long = "hf/an-owner/" + "A-very-long-name-" * 5 + "GGUF/" + "file-" * 20 + "Q4_K_M.gguf"
    api.catalog = [variant(QWEN, gated="manual"), variant(long)]
    api.put("node", node("atlas"), node("a-node-with-a-rather-long-name-for-a-host-01.example"))
    api.put("model", model(QWEN, display_name="Qwen3 8B"), model(long, display_name=""))
    api.put("task", task(long, "atlas", status="downloading", progress=0.4, speed_bps=10**8))


def test_names_from_outside_are_only_ever_text(api: FakeApi, page: Page) -> None:
    error = {"code": "x", "message": EVIL, "retryable": False}
    api.catalog = [
        variant(
            QWEN,
            repo=f"owner/{EVIL}",
            filename=EVIL,
            quantization=EVIL,
            download_url="javascript:alert(1)/resolve/main/x",
        )
    ]
    api.put("node", node("atlas", name=EVIL, labels={EVIL: EVIL}, version=EVIL))
    api.put("model", model(QWEN, display_name=EVIL, quantization=EVIL))
    api.put("task", task(QWEN, "atlas", status="failed", error=error))

    page.goto(f"{api.url}/dashboard")

    expect(page.locator(".variant")).to_contain_text(EVIL)
    expect(page.locator("#panel-available article a")).to_have_count(0)
    page.get_by_role("tab", name="Supported").click()
    expect(page.locator("#panel-supported h2").last).to_have_text(EVIL)
    expect(page.locator("#panel-supported .row-note")).to_contain_text(EVIL)
    page.get_by_role("tab", name="Nodes").click()
    expect(page.locator("#panel-nodes h2").last).to_have_text(EVIL)
    assert page.locator("main img, main b").count() == 0


def test_the_tabs_are_walked_by_keys(api: FakeApi, page: Page) -> None:
    page.goto(f"{api.url}/dashboard")
    first = page.get_by_role("tab", name="Available")
    first.focus()

    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Supported")).to_be_focused()
    expect(page.locator("#panel-supported")).to_be_visible()
    page.keyboard.press("End")
    expect(page.locator("#panel-nodes")).to_be_visible()
    page.keyboard.press("ArrowRight")

    expect(first).to_be_focused()
    expect(page.locator("#panel-available")).to_be_visible()
    expect(page.locator("#panel-nodes")).to_be_hidden()


def test_an_order_is_given_by_keys_alone(api: FakeApi, page: Page) -> None:
    api.put("node", node("atlas"))
    api.put("model", model(QWEN))
    page.goto(f"{api.url}/dashboard#supported")
    button = page.get_by_role("button", name="Download")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Download to 1 node")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(button).to_be_focused()

    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Download to 1 node")).to_be_focused()
    page.keyboard.press("Enter")

    expect(page.get_by_role("progressbar")).to_have_count(1)


def test_a_download_is_steered_by_keys_without_losing_the_place(api: FakeApi, page: Page) -> None:
    api.put("node", node("atlas"))
    api.put("model", model(QWEN))
    api.put("task", task(QWEN, "atlas", status="downloading"))
    page.goto(f"{api.url}/dashboard#supported")
    page.get_by_role("button", name="Pause: atlas").focus()

    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Resume: atlas")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Pause: atlas")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    expect(page.get_by_role("button", name="Start again: atlas")).to_be_visible()
    expect(page.locator(".row")).to_be_focused()


def test_nothing_sticks_out_of_a_narrow_screen(api: FakeApi, browser: Browser) -> None:
    fill(api)
    with watched_page(browser, width=380) as page:
        page.goto(f"{api.url}/dashboard")
        for tab in ("available", "supported", "nodes"):
            page.locator(f"#tab-{tab}").click()
            page.locator(f"#panel-{tab} article").last.wait_for()

            overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")

            assert overflow <= 0, tab


CONTRAST = """() => {
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map((v) => v / 255)
            .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const ground = (element) => {
        for (let e = element; e; e = e.parentElement) {
            const [r, g, b, a = 1] = parse(getComputedStyle(e).backgroundColor);
            if (a === 1) return [r, g, b];
        }
        return [255, 255, 255];
    };
    const poor = [];
    for (const element of document.querySelectorAll("body *")) {
        const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
        if (!own || !element.checkVisibility() || element.closest(":disabled")) continue;
        const pair = [parse(getComputedStyle(element).color), ground(element)].map(luminance);
        const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
        if (ratio < 4.5) poor.push(`${element.textContent}: ${ratio.toFixed(2)}`);
    }
    return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(api: FakeApi, page: Page, scheme: str) -> None:
    fill(api)
    error = {"code": "disk_full", "message": "the disk is full", "retryable": True}
    api.put("task", task(QWEN, "atlas", status="failed", error=error))
    api.freshness = {"cached": True, "stale": True, "problem": "it answered 502"}
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(f"{api.url}/dashboard")
    page.locator(".variant").first.wait_for()

    for tab in ("Available", "Supported", "Nodes"):
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate(CONTRAST) == []
