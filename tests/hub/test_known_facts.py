"""What headers told is known to every page, without another question to the Hub."""

from pathlib import Path

import pytest

from router.domain.catalog import CatalogQuery, CatalogRepo
from router.hub.catalog import HubCatalog
from tests.fakes.hub import Answer, FaultyHub, StallAfter, make_repo
from tests.hub.conftest import MakeCatalog
from tests.hub.gguf_bytes import header

REPO = "many/headers-GGUF"


@pytest.fixture
def many(folder: Path, hub: FaultyHub) -> str:
    """A repository with six models whose headers can be read."""
    contents = {
        f"m-{quantization}.gguf": header(
            {"general.architecture": "llama", "llama.block_count": number + 1}
        )
        for number, quantization in enumerate(("Q2_K", "Q3_K", "Q4_0", "Q5_0", "Q6_K", "Q8_0"))
    }
    make_repo(folder, REPO, contents)
    return REPO


def layers(catalog: HubCatalog, repo: CatalogRepo) -> list[int | None]:
    """The layers of each variant, as far as they are known."""
    known = (catalog.known_facts(repo.repo, repo.commit, variant) for variant in repo.variants)
    return [facts.layers if facts else None for facts in known]


def test_nothing_is_known_and_nobody_is_asked_before_a_header_is_read(
    catalog: HubCatalog, hub: FaultyHub, many: str
) -> None:
    repo = catalog.repo(many, "main")
    calls = len(hub.requests)

    assert layers(catalog, repo) == [None] * 6
    assert len(hub.requests) == calls


def test_all_headers_of_a_repository_are_read_together_and_once(
    catalog: HubCatalog, hub: FaultyHub, many: str
) -> None:
    repo = catalog.repo(many, "main")

    catalog.read_headers(repo.repo, repo.commit, repo.variants)
    calls = len(hub.requests)
    catalog.read_headers(repo.repo, repo.commit, repo.variants)

    assert sorted(number or 0 for number in layers(catalog, repo)) == [1, 2, 3, 4, 5, 6]
    assert len(hub.requests) == calls
    [entry] = [
        entry
        for entry in catalog.search_variants(CatalogQuery(author="many"), 1, 0).entries
        if entry.repo.repo == many
    ]
    assert catalog.known_facts(many, entry.repo.commit, entry.variant) is not None


def test_what_was_read_outlives_a_restart_with_the_hub_off(
    make_catalog: MakeCatalog, hub: FaultyHub, many: str
) -> None:
    first = make_catalog()
    repo = first.repo(many, "main")
    first.read_headers(repo.repo, repo.commit, repo.variants)
    hub.stop()

    assert None not in layers(make_catalog(), repo)


def test_a_header_read_by_a_registration_is_known_to_the_pages(
    catalog: HubCatalog, many: str
) -> None:
    repo = catalog.repo(many, "main")
    assert layers(catalog, repo)[2] is None

    catalog.facts(repo.repo, repo.commit, repo.variants[2])

    assert [number is not None for number in layers(catalog, repo)] == [n == 2 for n in range(6)]


def test_the_same_content_in_a_newer_commit_is_not_read_again(
    catalog: HubCatalog, hub: FaultyHub, folder: Path, many: str
) -> None:
    repo = catalog.repo(many, "main")
    catalog.read_headers(repo.repo, repo.commit, repo.variants)
    make_repo(folder, many, {"README.md": b"now with words"})

    newer = catalog.repo(many, "main")

    assert newer.commit != repo.commit
    assert None not in layers(catalog, newer)


def test_no_more_headers_are_read_than_was_set(make_catalog: MakeCatalog, many: str) -> None:
    catalog = make_catalog(headers=2)
    repo = catalog.repo(many, "main")

    catalog.read_headers(repo.repo, repo.commit, repo.variants)

    assert len([number for number in layers(catalog, repo) if number]) == 2


def test_trouble_with_headers_raises_nothing(
    make_catalog: MakeCatalog, hub: FaultyHub, many: str
) -> None:
    catalog = make_catalog(header_patience=0.2)
    repo = catalog.repo(many, "main")
    stall = StallAfter(0)
    hub.script("*/resolve/*", Answer(500), Answer(403), stall)

    catalog.read_headers(repo.repo, repo.commit, repo.variants)
    stall.release()
