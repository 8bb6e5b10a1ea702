"""The tab of registered models: ordering them and watching them arrive."""

from playwright.sync_api import Locator, Page, expect

from tests.dashboard.fake_api import FakeApi, Refusal, model, node, task

QWEN = "hf/qwen/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf"
GEMMA = "hf/google/gemma-3-GGUF/gemma-3-Q4_K_M.gguf"
TASK = task(QWEN, "atlas")["id"]


def open_supported(api: FakeApi, page: Page) -> Locator:
    """Opens the tab; gives the card of QWEN."""
    page.goto(f"{api.url}/dashboard#supported")
    card = page.get_by_role("article", name=QWEN)
    card.wait_for()
    return card


def test_without_models_the_way_to_the_catalog_is_shown(api: FakeApi, page: Page) -> None:
    page.goto(f"{api.url}/dashboard#supported")

    page.get_by_role("button", name="Browse available models").click()

    expect(page.get_by_role("tab", name="Available")).to_have_attribute("aria-selected", "true")


def test_download_now_shows_the_plan_and_orders_all_nodes(api: FakeApi, page: Page) -> None:
    api.put("node", node("atlas"), node("boreas"), node("calypso", status="offline"))
    api.put("model", model(QWEN))
    api.verdicts = {
        "atlas": {"verdict": "ready"},
        "calypso": {"verdict": "refused", "reason": "only 1.2 GB are free"},
    }
    card = open_supported(api, page)

    card.get_by_role("button", name="Download").click()

    dialog = page.get_by_role("dialog", name="Download now")
    picks = dialog.get_by_role("listitem")
    expect(picks.nth(0)).to_contain_text("Already there")
    expect(picks.nth(1)).to_contain_text("4.37 GB from the Hub · 1.00 TB free")
    expect(picks.nth(2)).to_contain_text("calypso (offline)")
    expect(picks.nth(2)).to_contain_text("only 1.2 GB are free")
    expect(dialog).to_contain_text("4.37 GB will come over the internet line. 1 node cannot")
    dialog.get_by_role("button", name="Download to 3 nodes").click()
    expect(dialog).to_be_hidden()
    expect(card.get_by_role("progressbar")).to_have_count(3)
    [call] = api.calls_of("POST", "/api/models/download")
    assert call.body == {
        "model_name": QWEN,
        "target": "all",
        "node_ids": [],
        "plan_id": "plan-3",
    }


def test_a_plan_that_no_longer_holds_is_shown_anew_before_it_is_ordered(
    api: FakeApi, page: Page
) -> None:
    api.put("node", node("atlas"))
    api.put("model", model(QWEN))
    card = open_supported(api, page)
    card.get_by_role("button", name="Download").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("4.37 GB will come over the internet line.")
    line = "POST /api/models/download"
    api.refusals[line] = Refusal(409, "plan_outdated", "the order would do something else")
    api.verdicts = {"atlas": {"peer_bytes": 4_370_000_000, "from": "peers"}}

    dialog.get_by_role("button", name="Download to 1 node").click()
    expect(dialog).to_contain_text("4.37 GB go from node to node.")
    expect(dialog.get_by_role("alert")).to_contain_text("Something has changed since this plan")
    api.refusals.clear()
    dialog.get_by_role("button", name="Download to 1 node").click()

    expect(dialog).to_be_hidden()
    first, second = api.calls_of("POST", "/api/models/download")
    assert first.headers["idempotency-key"] != second.headers["idempotency-key"]


def test_chosen_nodes_are_ordered_and_no_others(api: FakeApi, page: Page) -> None:
    api.put("node", node("atlas"), node("boreas"), node("calypso"))
    api.put("model", model(QWEN))
    api.verdicts = {"calypso": {"verdict": "ready", "needed_bytes": 0}}
    card = open_supported(api, page)
    card.get_by_role("button", name="Download").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Already there").wait_for()

    dialog.get_by_label("Chosen nodes").check()
    expect(dialog.get_by_role("checkbox", name="calypso")).not_to_be_checked()
    dialog.get_by_role("checkbox", name="atlas").uncheck()
    expect(dialog).to_contain_text("4.37 GB will come over the internet line.")
    dialog.get_by_role("button", name="Download to 1 node").click()

    expect(dialog).to_be_hidden()
    [call] = api.calls_of("POST", "/api/models/download")
    assert call.body == {
        "model_name": QWEN,
        "target": "specific",
        "node_ids": ["boreas"],
        "plan_id": "plan-1",
    }


def test_a_second_try_of_the_same_order_carries_the_same_key(api: FakeApi, page: Page) -> None:
    api.put("node", node("atlas"))
    api.put("model", model(QWEN))
    line = "POST /api/models/download"
    api.refusals[line] = Refusal(507, "insufficient_disk", "no named node has the space")
    card = open_supported(api, page)
    card.get_by_role("button", name="Download").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Download to 1 node").click()
    expect(dialog.get_by_role("alert")).to_have_text("No named node has the space.")

    api.refusals.clear()
    dialog.get_by_role("button", name="Download to 1 node").click()

    expect(dialog).to_be_hidden()
    first, second = api.calls_of("POST", "/api/models/download")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


def test_without_nodes_the_dialog_says_how_to_get_one(api: FakeApi, page: Page) -> None:
    api.put("model", model(QWEN))
    api.refusals["POST /api/models/plan"] = Refusal(503, "no_nodes", "no node is known")
    card = open_supported(api, page)

    card.get_by_role("button", name="Download").click()

    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("alert")).to_contain_text("Start llm-router-agent")
    expect(dialog.get_by_role("button", name="Download", exact=True)).to_be_disabled()


def test_a_bar_follows_the_bytes_to_the_end_without_moving_the_page(
    api: FakeApi, page: Page
) -> None:
    api.put("node", node("atlas"))
    moving = task(QWEN, "atlas", status="downloading", bytes_done=437_000_000, progress=0.1)
    api.put("model", model(QWEN), model(GEMMA, created_at="2026-10-01T10:00:00Z"))
    api.put("task", moving)
    card = open_supported(api, page)
    bar = card.get_by_role("progressbar")
    expect(bar).to_have_attribute("aria-valuenow", "10")
    below = page.get_by_role("article", name=GEMMA)
    place = below.bounding_box()

    figures = {"speed_bps": 84_200_000, "eta_seconds": 28.2, "bytes_done": 2_023_310_000}
    sources = {"hub": 1_500_000_000, "peers": 523_310_000, "router": 0, "disk": 0}
    api.put("task", {**moving, "progress": 0.463, "bytes_from": sources, **figures})

    expect(bar).to_have_attribute("aria-valuenow", "46")
    for text in ("46 %", "2.02 GB of 4.37 GB", "84.2 MB/s", "29 s left"):
        expect(card).to_contain_text(text)
    expect(card).to_contain_text("1.50 GB from the Hub · 523 MB from other nodes")
    api.put("task", {**moving, "status": "verifying", "progress": 1.0})
    expect(card).to_contain_text("Verifying")
    api.put("task", {**moving, "status": "completed", "progress": 1.0})
    expect(card).to_contain_text("1 of 1 node ready")
    expect(card.get_by_role("button", name="atlas")).to_have_count(0)
    assert below.bounding_box() == place


def test_a_download_is_steered_from_its_row(api: FakeApi, page: Page) -> None:
    api.put("node", node("atlas"))
    api.put("model", model(QWEN))
    api.put("task", task(QWEN, "atlas", status="downloading"))
    card = open_supported(api, page)

    for button, said in (
        ("Pause", "Paused"),
        ("Resume", "Waiting"),
        ("Cancel", "Cancelled"),
        ("Start again", "Waiting"),
    ):
        card.get_by_role("button", name=f"{button}: atlas").click()
        expect(card.get_by_role("listitem")).to_contain_text(said)
    error = {"code": "disk_full", "message": "the disk is full", "retryable": True}
    api.put("task", task(QWEN, "atlas", status="failed", error=error))
    card.get_by_role("button", name="Try again: atlas").click()

    expect(card.get_by_role("listitem")).to_contain_text("Waiting")
    asked = [call.path.rpartition("/")[2] for call in api.calls if "/api/tasks/" in call.path]
    assert asked == ["pause", "resume", "cancel", "retry", "retry"]


def test_a_second_click_on_cancel_does_not_start_again(api: FakeApi, page: Page) -> None:
    api.put("node", node("atlas"))
    api.put("model", model(QWEN))
    api.put("task", task(QWEN, "atlas", status="downloading"))
    card = open_supported(api, page)
    place = card.get_by_role("button", name="Cancel").bounding_box()
    assert place is not None
    middle = (place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)

    page.mouse.click(*middle)
    expect(card.get_by_role("button", name="Start again")).to_be_visible()
    page.mouse.click(*middle)

    expect(card).to_contain_text("Cancelled")
    assert api.calls_of("POST", f"/api/tasks/{TASK}/retry") == []


def test_a_refused_action_is_told(api: FakeApi, page: Page) -> None:
    api.put("node", node("atlas"))
    api.put("model", model(QWEN))
    api.put("task", task(QWEN, "atlas", status="downloading"))
    why = Refusal(409, "wrong_state", "the task has ended")
    api.refusals[f"POST /api/tasks/{TASK}/pause"] = why
    card = open_supported(api, page)

    card.get_by_role("button", name="Pause").click()

    expect(page.get_by_role("alert")).to_contain_text("The task has ended.")


def test_a_failure_an_offline_node_and_a_note_are_explained(api: FakeApi, page: Page) -> None:
    api.put("node", node("atlas"), node("boreas", status="offline"), node("calypso"))
    error = {"code": "disk_full", "message": "the disk is full", "retryable": True}
    api.put("model", model(QWEN))
    api.put(
        "task",
        task(QWEN, "atlas", status="failed", error=error),
        task(QWEN, "boreas", status="downloading", speed_bps=5_000_000, node_online=False),
        task(QWEN, "calypso", note="waiting 38 s: the Hub limits requests"),
    )

    card = open_supported(api, page)

    rows = card.get_by_role("listitem")
    expect(rows.nth(0)).to_contain_text("The disk is full.")
    expect(rows.nth(1)).to_contain_text("Waiting for the node")
    expect(rows.nth(1)).not_to_contain_text("MB/s")
    expect(rows.nth(2)).to_contain_text("waiting 38 s: the Hub limits requests")


def test_a_busy_model_is_removed_only_when_confirmed_twice(api: FakeApi, page: Page) -> None:
    api.put("node", node("atlas"))
    api.put("model", model(QWEN))
    busy = Refusal(409, "model_busy", "tasks of this model are running")
    api.refusals[f"DELETE /api/models/{QWEN}"] = busy
    card = open_supported(api, page)
    card.get_by_role("button", name="Remove").click()
    dialog = page.get_by_role("dialog")

    dialog.get_by_role("button", name="Remove", exact=True).click()
    expect(dialog.get_by_role("alert")).to_have_text("Tasks of this model are running.")
    dialog.get_by_role("button", name="Cancel its downloads and remove").click()

    expect(card).to_have_count(0)
    expect(page.get_by_text("No model is supported yet")).to_be_visible()


def test_what_waits_for_conversion_cannot_be_ordered(api: FakeApi, page: Page) -> None:
    api.put("model", model(QWEN, status="pending_conversion", quantization=""))

    card = open_supported(api, page)

    expect(card).to_contain_text("Waiting for conversion")
    expect(card.get_by_role("button", name="Download")).to_be_disabled()


def test_an_older_task_does_not_hide_the_newest(api: FakeApi, page: Page) -> None:
    api.put("node", node("atlas"))
    api.put("model", model(QWEN))
    newest = task(QWEN, "atlas", status="downloading", created_at="2026-11-01T11:30:00Z")
    api.put("task", newest, task(QWEN, "atlas", id="older", status="cancelled"))

    card = open_supported(api, page)

    expect(card.get_by_role("listitem")).to_have_count(1)
    expect(card).to_contain_text("Downloading")


def test_a_model_that_is_registered_again_starts_clean(api: FakeApi, page: Page) -> None:
    api.put("node", node("atlas"))
    api.put("task", task(QWEN, "atlas", status="cancelled", progress=0.3))
    api.put("model", model(QWEN, created_at="2026-11-01T11:00:01Z"))

    card = open_supported(api, page)

    expect(card).to_contain_text("on no node")
    expect(card.get_by_role("progressbar")).to_have_count(0)


def test_what_a_node_lost_after_its_task_completed_is_not_ready(api: FakeApi, page: Page) -> None:
    lost = {"node_id": "atlas", "node_name": "atlas", "status": "missing", "verified_at": None}
    api.put("node", node("atlas"))
    api.put("model", model(QWEN, nodes=[{**lost, "task_id": TASK}]))
    api.put("task", task(QWEN, "atlas", status="completed", progress=1.0))

    card = open_supported(api, page)

    expect(card).to_contain_text("0 of 1 node ready")


def test_models_are_found_by_name_and_state(api: FakeApi, page: Page) -> None:
    api.put("node", node("atlas"))
    api.put("model", model(QWEN), model(GEMMA))
    api.put("task", task(QWEN, "atlas", status="downloading"))
    card = open_supported(api, page)
    other = page.get_by_role("article", name=GEMMA)

    page.get_by_label("by name").fill("GEMMA")
    expect(card).to_have_count(0)
    expect(other).to_be_visible()
    page.get_by_label("by name").fill("")
    page.get_by_label("by state").select_option("Downloading")

    expect(card).to_be_visible()
    expect(other).to_have_count(0)
    api.put("task", task(QWEN, "atlas", status="completed"))
    expect(page.get_by_text("No supported model fits the filter.")).to_be_visible()
