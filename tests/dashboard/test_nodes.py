"""The tab of nodes."""

from playwright.sync_api import Page, expect

from tests.dashboard.fake_api import FakeApi, model, node, task

QWEN = "hf/qwen/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf"


def test_a_node_shows_its_disk_its_models_and_its_work(api: FakeApi, page: Page) -> None:
    held = {"name": QWEN, "status": "ready", "verified_at": "2026-11-01T11:00:00Z"}
    gpu = {"name": "NVIDIA L40S", "memory_bytes": 48_000_000_000}
    api.put("node", node("atlas", models=[held], gpus=[gpu], labels={"site": "berlin"}))
    api.put("model", model(QWEN, display_name="Qwen3"))
    api.put("task", task(QWEN, "atlas", status="downloading", speed_bps=84_200_000))

    page.goto(f"{api.url}/dashboard#nodes")

    card = page.locator("#panel-nodes article")
    for text in ("Online", "600 GB free of 1.00 TB", "NVIDIA L40S 48.0 GB", "site=berlin"):
        expect(card).to_contain_text(text)
    expect(card).to_contain_text("1 model · 1 download · 84.2 MB/s")
    expect(card.get_by_role("listitem")).to_have_text("Qwen3")
    expect(card.get_by_role("meter", name="Disk used")).to_have_attribute("aria-valuenow", "40")


def test_a_node_comes_goes_offline_and_is_removed_without_a_reload(
    api: FakeApi, page: Page
) -> None:
    page.goto(f"{api.url}/dashboard#nodes")
    expect(page.get_by_text("llm-router-agent --router 127.0.0.1:50051")).to_be_visible()
    card = page.locator("#panel-nodes article")

    api.put("node", node("atlas"))
    expect(card).to_contain_text("Online")
    expect(page.locator("#fleet")).to_have_text("1 of 1 node online")
    api.put("node", node("atlas", status="offline"))
    expect(card).to_contain_text("Last seen")
    api.delete("node", "atlas")

    expect(card).to_have_count(0)
    expect(page.get_by_text("No node has connected yet")).to_be_visible()
