"""The live feed: what the page knows follows the router, also over broken connections."""

from playwright.sync_api import Page, expect

from tests.dashboard.fake_api import FakeApi, model, node, task
from tests.support import eventually

QWEN = "hf/qwen/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf"
GEMMA = "hf/google/gemma-3-GGUF/gemma-3-Q4_K_M.gguf"


def test_after_a_break_the_page_shows_what_is_true_now(api: FakeApi, page: Page) -> None:
    api.put("node", node("atlas"))
    api.put("model", model(QWEN), model(GEMMA))
    api.put("task", task(QWEN, "atlas", status="downloading", speed_bps=84_200_000))
    page.goto(f"{api.url}/dashboard#supported")
    expect(page.get_by_text("84.2 MB/s", exact=True)).to_be_visible()
    cards = page.locator("#panel-supported article")
    expect(cards).to_have_count(2)
    expect(page.locator("#connection")).to_have_text("Live")

    api.accepts_streams = False
    api.drop_streams()
    expect(page.locator("#connection")).to_have_text("Reconnecting")
    expect(page.get_by_text("84.2 MB/s", exact=True)).to_be_hidden()
    eventually(lambda: len(api.calls_of("GET", "/api/events")) >= 2)
    api.delete("model", GEMMA)
    api.put("task", task(QWEN, "atlas", status="completed", progress=1.0))
    expect(cards).to_have_count(2)
    api.accepts_streams = True

    expect(page.locator("#connection")).to_have_text("Live")
    expect(cards).to_have_count(1)
    expect(cards).to_contain_text("1 of 1 node ready")


def test_the_browser_says_what_it_heard_last(api: FakeApi, page: Page) -> None:
    api.put("model", model(QWEN))
    page.goto(f"{api.url}/dashboard#supported")
    expect(page.locator("#panel-supported article")).to_have_count(1)

    api.drop_streams()

    eventually(lambda: len(api.calls_of("GET", "/api/events")) == 2)
    assert "last-event-id" in api.calls_of("GET", "/api/events")[1].headers


def test_a_resumed_stream_without_a_snapshot_drops_nothing(api: FakeApi, page: Page) -> None:
    api.put("model", model(QWEN))
    page.goto(f"{api.url}/dashboard#supported")
    cards = page.locator("#panel-supported article")
    expect(cards).to_have_count(1)
    api.resumes = True

    api.drop_streams()
    eventually(lambda: api.open_streams() == 1)
    api.put("model", model(GEMMA))

    expect(cards).to_have_count(2)


def test_a_hundred_models_on_twenty_nodes_are_changed_and_not_rebuilt(
    api: FakeApi, page: Page
) -> None:
    nodes = [node(f"node-{n:02}") for n in range(20)]
    names = [f"hf/owner/repo-{n:03}/model.gguf" for n in range(100)]
    tasks = [
        task(name, nodes[n % 20]["id"], status="downloading", progress=0.1)
        for name in names
        for n in range(2)
    ]
    api.put("node", *nodes)
    api.put("model", *(model(name) for name in names))
    api.put("task", *tasks)
    page.goto(f"{api.url}/dashboard#supported")
    bars = page.get_by_role("progressbar")
    expect(bars).to_have_count(200)
    page.evaluate(
        """() => {
            window.added = 0;
            new MutationObserver((changes) => {
                for (const change of changes) {
                    window.added += [...change.addedNodes].filter((n) => n.nodeType === 1).length;
                }
            }).observe(document.body, { childList: true, subtree: true });
        }"""
    )

    for step in range(2, 10):
        api.put("task", *({**one, "progress": step / 10} for one in tasks))

    expect(page.locator('[role=progressbar][aria-valuenow="90"]')).to_have_count(200)
    assert page.evaluate("window.added") == 0
