"""The whole story in a real browser: real hub, router and agents, each a process of its own."""

import hashlib
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import expect

from deploy.demo.models import MIB, make_model
from deploy.demo.processes import Daemons
from tests.dashboard.browser import chromium, watched_page

SCRIPTS = Path(sysconfig.get_path("scripts"))
REPO = "tiny-org/tiny-llama-GGUF"
FILE = "tiny-llama-Q8_0.gguf"
NODES = ("atlas", "boreas")
ARRIVAL_MS = 60_000

# Notes every value that a bar takes, by the bar's name.
WATCH_BARS = """() => {
    window.sameDocument = true;
    window.seen = {};
    new MutationObserver((changes) => {
        for (const { target } of changes) {
            const name = target.getAttribute("aria-label");
            (window.seen[name] ??= []).push(Number(target.getAttribute("aria-valuenow")));
        }
    }).observe(document.body, { subtree: true, attributeFilter: ["aria-valuenow"] });
}"""


@dataclass(frozen=True, slots=True)
class Fleet:
    """A router with two slow nodes, and the file that its hub offers."""

    dashboard: str
    file: Path
    models_dirs: tuple[Path, ...]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Hub, router and agents on free ports; the agents take 4 MB a second."""
    catalog = tmp_path / "catalog"
    file = make_model(catalog / REPO / FILE, size_bytes=16 * MIB)
    foreign = ("LLM_ROUTER_", "HF_", "HUGGING")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    environment |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    with Daemons(tmp_path, environment) as daemons:
        hub = daemons.start("hub", [str(SCRIPTS / "llm-router-hub"), "--port", "0", str(catalog)])
        router = daemons.start(
            "router",
            [
                *(str(SCRIPTS / "llm-router-server"), "--http-port", "0", "--grpc-port", "0"),
                *("--data-dir", str(tmp_path / "router" / "data")),
                *("--hub-url", "http://" + hub.addresses("http")[0]),
            ],
        )
        http, grpc = router.addresses("http", "grpc")
        for name in NODES:
            daemons.start(
                name,
                [
                    *(str(SCRIPTS / "llm-router-agent"), "--router", grpc, "--name", name),
                    *("--data-dir", str(tmp_path / name / "data")),
                    *("--models-dir", str(tmp_path / name / "models")),
                    *("--max-rate", "4MB", "--reserve", "0"),
                ],
            )
        models_dirs = tuple(tmp_path / name / "models" for name in NODES)
        yield Fleet(f"http://{http}/dashboard", file, models_dirs)


def test_a_model_goes_from_the_catalog_onto_all_nodes_without_a_reload(fleet: Fleet) -> None:
    with chromium() as browser, watched_page(browser) as page:
        page.goto(fleet.dashboard)
        page.evaluate(WATCH_BARS)
        expect(page.locator("#fleet")).to_have_text("2 of 2 nodes online", timeout=ARRIVAL_MS)

        page.get_by_label("Search the Hub's catalog").fill("tiny-llama")
        page.get_by_role("button", name=f"Register {REPO} Q8_0").click()
        row = page.locator(".variant")
        expect(row).to_contain_text("Registered")
        row.get_by_role("button", name="Show").click()
        card = page.get_by_role("article", name=f"hf/{REPO}/{FILE}")
        card.get_by_role("button", name="Download").click()
        page.get_by_role("button", name="Download to 2 nodes").click()
        expect(card).to_contain_text("2 of 2 nodes ready", timeout=ARRIVAL_MS)

        seen = page.evaluate("window.seen")
        assert page.evaluate("window.sameDocument")
    for node in NODES:
        [values] = [values for name, values in seen.items() if name.endswith(f" on {node}")]
        assert values == sorted(values)
        assert values[-1] == 100
        assert any(0 < value < 99 for value in values)
    digest = hashlib.sha256(fleet.file.read_bytes()).hexdigest()
    for folder in fleet.models_dirs:
        [arrived] = folder.glob(f"models--*/snapshots/*/{FILE}")
        assert hashlib.sha256(arrived.read_bytes()).hexdigest() == digest
