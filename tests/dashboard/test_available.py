"""The tab of the Hub's catalog."""

from playwright.sync_api import Page, expect

from tests.dashboard.fake_api import FakeApi, Refusal, model, node, task, variant
from tests.support import eventually

QWEN = "hf/qwen/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf"
QWEN_LARGE = "hf/qwen/Qwen3-8B-GGUF/Qwen3-8B-Q8_0.gguf"
GEMMA = "hf/google/gemma-3-GGUF/gemma-3-Q4_K_M.gguf"
SEARCH = "Search the Hub's catalog"


def test_variants_of_a_repository_stand_together_with_what_one_chooses_by(
    api: FakeApi, page: Page
) -> None:
    large = variant(QWEN_LARGE, quantization="Q8_0", size_bytes=8_710_000_000, gated="manual")
    api.catalog = [variant(QWEN, gated="manual"), large, variant(GEMMA)]

    page.goto(f"{api.url}/dashboard")

    repos = page.locator("#panel-available article")
    expect(repos).to_have_count(2)
    expect(repos.first).to_contain_text("qwen/Qwen3-8B-GGUF")
    expect(repos.first).to_contain_text("Gated")
    expect(repos.first).to_contain_text("12.3K")
    expect(repos.last).not_to_contain_text("Gated")
    rows = repos.first.get_by_role("listitem")
    expect(rows.last).to_contain_text("Q8_0")
    expect(rows.last).to_contain_text("8.71 GB")
    expect(rows.last).to_contain_text("5.20 GB")
    link = repos.first.get_by_role("link")
    expect(link).to_have_attribute("href", "https://hub.example/qwen/Qwen3-8B-GGUF")


def test_typing_asks_the_hub_once_and_shows_what_fits(api: FakeApi, page: Page) -> None:
    api.catalog = [variant(QWEN), variant(GEMMA)]
    page.goto(f"{api.url}/dashboard")
    expect(page.locator(".variant")).to_have_count(2)

    page.get_by_label(SEARCH).press_sequentially("gemma")

    expect(page.locator(".variant")).to_have_count(1)
    expect(page.locator(".variant")).to_contain_text("gemma-3-Q4_K_M.gguf")
    searches = [call.query["search"] for call in api.calls_of("GET", "/api/models/available")]
    assert searches == ["", "gemma"]


def test_a_search_survives_a_reload(api: FakeApi, page: Page) -> None:
    api.catalog = [variant(QWEN), variant(GEMMA)]
    page.goto(f"{api.url}/dashboard#available?search=gemma")
    expect(page.locator(".variant")).to_have_count(1)

    page.reload()

    expect(page.get_by_label(SEARCH)).to_have_value("gemma")
    expect(page.locator(".variant")).to_have_count(1)


def test_pages_go_forth_and_back(api: FakeApi, page: Page) -> None:
    api.catalog = [variant(f"hf/owner/repo-{n:02}/m.gguf") for n in range(45)]
    page.goto(f"{api.url}/dashboard")
    expect(page.get_by_text("1–20 of 45")).to_be_visible()

    page.get_by_role("button", name="Next").click()
    page.get_by_text("21–40 of 45").wait_for()
    page.get_by_role("button", name="Next").click()

    expect(page.get_by_text("41–45 of 45")).to_be_visible()
    expect(page.locator(".variant")).to_have_count(5)
    expect(page.get_by_role("button", name="Next")).to_be_disabled()
    page.get_by_role("button", name="Previous").click()
    expect(page.get_by_text("21–40 of 45")).to_be_visible()


def test_registering_shows_the_result_and_its_warnings_in_place(api: FakeApi, page: Page) -> None:
    api.catalog = [variant(QWEN), variant(GEMMA)]
    api.warnings = ["no online node has enough memory"]
    page.goto(f"{api.url}/dashboard")

    page.get_by_role("button", name="Register qwen/Qwen3-8B-GGUF Q4_K_M").click()

    row = page.locator(".variant").first
    expect(row).to_contain_text("Registered")
    expect(row).to_contain_text("No online node has enough memory.")
    expect(page.locator(".variant").last.get_by_role("button")).to_have_text("Register")
    [call] = api.calls_of("POST", "/api/models/register")
    assert call.body == {"repo": "qwen/Qwen3-8B-GGUF", "filename": "Qwen3-8B-Q4_K_M.gguf"}
    row.get_by_role("button", name="Show").click()
    expect(page.get_by_role("article", name=QWEN)).to_be_visible()


def test_a_refused_registration_says_why_at_the_row_and_can_be_tried_again(
    api: FakeApi, page: Page
) -> None:
    api.catalog = [variant(QWEN)]
    why = "ask for access at https://hub.example/qwen/Qwen3-8B-GGUF, then set HF_TOKEN"
    api.refusals["POST /api/models/register"] = Refusal(424, "hub_gated", why)
    page.goto(f"{api.url}/dashboard")
    row = page.locator(".variant")
    row.get_by_role("button").click()
    expect(row).to_contain_text("Ask for access at")
    expect(row.get_by_role("link")).to_have_attribute(
        "href", "https://hub.example/qwen/Qwen3-8B-GGUF"
    )

    api.refusals.clear()
    row.get_by_role("button").click()

    expect(row).to_contain_text("Registered")


def test_what_others_register_shows_without_a_reload(api: FakeApi, page: Page) -> None:
    api.catalog = [variant(QWEN)]
    page.goto(f"{api.url}/dashboard")
    row = page.locator(".variant")
    expect(row.get_by_role("button")).to_have_text("Register")

    api.put("model", model(QWEN))
    expect(row).to_contain_text("Registered")
    api.put("node", node("atlas"))
    api.put("task", task(QWEN, "atlas", status="completed", progress=1.0))

    expect(row).to_contain_text("On 1 node")


def test_a_stale_page_says_since_when_and_why(api: FakeApi, page: Page) -> None:
    api.catalog = [variant(QWEN)]
    api.freshness = {"cached": True, "stale": True, "problem": "it answered 502"}
    page.goto(f"{api.url}/dashboard")
    banner = page.get_by_text("The Hub could not be asked: it answered 502.")
    expect(banner).to_be_visible()
    expect(banner).to_contain_text("1 Nov 2026")
    expect(page.locator(".variant")).to_have_count(1)

    api.freshness = {}
    page.get_by_role("button", name="Ask again").click()

    expect(banner).to_be_hidden()


def test_a_limited_hub_is_asked_again_by_itself(api: FakeApi, page: Page) -> None:
    api.catalog = [variant(QWEN)]
    line = "GET /api/models/available"
    api.refusals[line] = Refusal(424, "hub_rate_limited", "the Hub limits requests", retry_after=1)
    page.goto(f"{api.url}/dashboard")
    expect(page.get_by_text("The Hub limits our requests")).to_be_visible()

    api.refusals.clear()

    expect(page.locator(".variant")).to_have_count(1)
    expect(page.get_by_text("The Hub limits our requests")).to_be_hidden()


def test_an_answer_that_comes_late_does_not_replace_a_newer_one(api: FakeApi, page: Page) -> None:
    api.catalog = [variant(QWEN), variant(GEMMA)]
    api.held_search = "qwen"
    page.goto(f"{api.url}/dashboard")
    page.get_by_label(SEARCH).fill("qwen")
    page.get_by_label(SEARCH).press("Enter")
    eventually(lambda: len(api.calls_of("GET", "/api/models/available")) == 2)

    page.get_by_label(SEARCH).fill("gemma")
    page.get_by_label(SEARCH).press("Enter")
    expect(page.locator(".variant")).to_have_count(1)
    api.release()
    page.get_by_role("tab", name="Nodes").click()
    page.get_by_role("tab", name="Available").click()

    expect(page.locator(".variant")).to_contain_text("gemma-3-Q4_K_M.gguf")


def test_nothing_found_helps_on(api: FakeApi, page: Page) -> None:
    page.goto(f"{api.url}/dashboard#available?search=nonesuch")

    expect(page.get_by_text("Nothing fits “nonesuch”")).to_be_visible()
    expect(page.get_by_text("fewer or shorter words")).to_be_visible()
