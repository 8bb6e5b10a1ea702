"""Pages of the catalog: complete, in order, and still while the Hub's list moves."""

import threading
from pathlib import Path

import pytest

from router.domain.catalog import CatalogQuery, Sort
from router.domain.errors import InvalidArgument, InvalidPageToken
from router.hub.catalog import HubCatalog
from router.hub.listings import ListingSettings
from tests.fakes.hub import Answer, FaultyHub, make_repo
from tests.hub.conftest import REPOS, Clock, MakeCatalog
from tests.support import eventually

BY_DOWNLOADS = CatalogQuery(sort=Sort.DOWNLOADS)
ALL = [f"hf/{repo}/m-{q}.gguf" for repo in REPOS for q in ("Q4_K_M", "Q8_0")]


def variants(catalog: HubCatalog, query: CatalogQuery, limit: int = 5) -> list[str]:
    """The names on all pages by offset."""
    found: list[str] = []
    while True:
        page = catalog.search_variants(query, limit, len(found))
        found += [entry.variant.name for entry in page.entries]
        if not page.has_more:
            assert page.total == len(found)
            return found


def repos(catalog: HubCatalog, query: CatalogQuery, size: int = 5) -> list[str]:
    """The repositories on all pages by token."""
    found: list[str] = []
    token: str | None = ""
    while token is not None:
        page = catalog.search_repos(query, size, token)
        found += [repo.repo for repo in page.repos]
        token = page.next_token
    return found


def test_all_pages_together_hold_every_variant_once_in_the_hubs_order(catalog: HubCatalog) -> None:
    assert variants(catalog, BY_DOWNLOADS) == ALL
    assert repos(catalog, BY_DOWNLOADS) == list(REPOS)


@pytest.mark.parametrize("limit", [1, 7, 24, 100])
def test_any_page_size_gives_the_same_list(catalog: HubCatalog, limit: int) -> None:
    assert variants(catalog, BY_DOWNLOADS, limit) == ALL
    assert repos(catalog, BY_DOWNLOADS, limit) == list(REPOS)


def test_a_variant_has_its_true_size_and_digest(catalog: HubCatalog) -> None:
    page = catalog.search_variants(BY_DOWNLOADS, 1, 0)

    (entry,) = page.entries
    assert entry.variant.size_bytes == 100
    assert entry.variant.files[0].sha256 is not None
    assert entry.repo.downloads == 1000
    assert (page.freshness.cached, page.freshness.stale, page.total) == (False, False, None)


def test_the_second_look_asks_the_hub_nothing(catalog: HubCatalog, hub: FaultyHub) -> None:
    catalog.search_variants(BY_DOWNLOADS, 20, 0)
    before = len(hub.requests)

    page = catalog.search_variants(BY_DOWNLOADS, 20, 0)

    assert len(hub.requests) == before
    assert page.freshness.cached


def test_a_first_page_costs_one_listing_and_one_tree_for_each_repository(
    make_catalog: MakeCatalog, hub: FaultyHub
) -> None:
    catalog = make_catalog()

    catalog.search_repos(BY_DOWNLOADS, 4, "")

    paths = [request.path for request in hub.requests]
    assert paths.count("/api/models") == 1
    assert sum("/tree/" in path for path in paths) == 4
    assert len(paths) == 5


def test_those_who_ask_together_share_the_calls(catalog: HubCatalog, hub: FaultyHub) -> None:
    hub.delay = 0.1
    together = threading.Barrier(6)
    pages = []

    def ask() -> None:
        together.wait()
        pages.append(catalog.search_variants(BY_DOWNLOADS, 6, 0))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    paths = [request.path for request in hub.requests]
    assert len({page.entries for page in pages}) == 1
    assert len(pages) == 6
    assert len(paths) == len(set(paths))


def test_walking_sees_every_variant_once_while_the_list_moves(
    catalog: HubCatalog, hub: FaultyHub, folder: Path
) -> None:
    found: list[str] = []
    token: str | None = ""
    step = 0
    while token is not None:
        page = catalog.search_repos(BY_DOWNLOADS, 2, token)
        found += [v.name for repo in page.repos for v in repo.variants]
        token = page.next_token
        # The last of the list jump to its top, past the walker; new ones come in.
        if step < 4:
            hub.set_standing(REPOS[-1 - step], downloads=5000 + step)
            hub.set_standing(REPOS[step], downloads=1 + step)
            make_repo(folder, f"late/new-{step}-GGUF", {"n-Q4_0.gguf": 10})
            hub.set_standing(f"late/new-{step}-GGUF", downloads=9000)
        step += 1

    assert len(found) == len(set(found))
    assert set(ALL) <= set(found)


def test_offsets_walk_one_list_while_it_is_refreshed(
    catalog: HubCatalog, hub: FaultyHub, clock: Clock
) -> None:
    first = catalog.search_variants(BY_DOWNLOADS, 23, 0)
    for number, repo in enumerate(REPOS):
        hub.set_standing(repo, downloads=number)
    clock.pass_by(400)
    eventually(lambda: repos(catalog, BY_DOWNLOADS) == list(reversed(REPOS)))

    rest = catalog.search_variants(BY_DOWNLOADS, 23, 23)

    names = [entry.variant.name for page in (first, rest) for entry in page.entries]
    assert names == ALL


def test_a_list_named_by_the_caller_stays_although_another_began_anew(
    catalog: HubCatalog, hub: FaultyHub, clock: Clock
) -> None:
    first = catalog.search_variants(BY_DOWNLOADS, 12, 0)
    hub.set_standing(REPOS[-1], downloads=5000)
    clock.pass_by(400)
    newest = eventually(
        lambda: (p := catalog.search_variants(BY_DOWNLOADS, 1, 0)).listing != first.listing and p
    )

    rest = catalog.search_variants(BY_DOWNLOADS, 12, 12, first.listing)

    assert [e.variant.name for e in rest.entries] == ALL[12:]
    assert newest
    assert newest.entries[0].repo.repo == REPOS[-1]


def test_a_page_token_outlives_a_restart(make_catalog: MakeCatalog, hub: FaultyHub) -> None:
    before = make_catalog()
    first = before.search_repos(BY_DOWNLOADS, 6, "")
    before.close()
    assert first.next_token is not None

    rest = make_catalog().search_repos(BY_DOWNLOADS, 6, first.next_token)

    assert [repo.repo for repo in (*first.repos, *rest.repos)] == list(REPOS)


def test_filters_choose_among_variants(catalog: HubCatalog) -> None:
    sized = CatalogQuery(sort=Sort.DOWNLOADS, min_bytes=104, max_bytes=201)
    tagged = CatalogQuery(sort=Sort.DOWNLOADS, quantization="q8_0")

    assert [n.rpartition("/")[2] for n in variants(catalog, sized)] == [
        "m-Q8_0.gguf",
        "m-Q8_0.gguf",
        *["m-Q4_K_M.gguf"] * 8,
    ]
    assert variants(catalog, tagged) == [name for name in ALL if "Q8_0" in name]
    assert repos(catalog, tagged) == list(REPOS)


def test_search_and_author_are_the_hubs(catalog: HubCatalog) -> None:
    assert repos(catalog, CatalogQuery(search="  model-07 ")) == [REPOS[7]]
    assert set(repos(catalog, CatalogQuery(author="owner-1"))) == set(REPOS[1::3])
    assert variants(catalog, CatalogQuery(search="nothing like it")) == []


def test_a_filter_that_fits_rarely_is_followed_a_part_at_a_time(
    make_catalog: MakeCatalog,
) -> None:
    catalog = make_catalog(examined=4)
    rare = CatalogQuery(sort=Sort.DOWNLOADS, min_bytes=211)

    first = catalog.search_variants(rare, 5, 0)
    second = catalog.search_variants(rare, 5, 0)
    third = catalog.search_variants(rare, 5, 0)

    assert (first.entries, first.has_more, second.has_more) == ((), True, True)
    assert [entry.variant.name for entry in third.entries] == [ALL[-1]]
    assert repos(catalog, rare) == [REPOS[-1]]


def test_a_list_without_end_is_followed_so_far_only(make_catalog: MakeCatalog) -> None:
    catalog = make_catalog(listing=ListingSettings(page=4, longest=8))

    first = catalog.search_variants(BY_DOWNLOADS, 15, 0)

    assert len(first.entries) == 15
    with pytest.raises(InvalidArgument, match="narrower"):
        catalog.search_variants(BY_DOWNLOADS, 15, 15)


def test_lists_that_no_longer_fit_in_memory_are_found_again(make_catalog: MakeCatalog) -> None:
    catalog = make_catalog(listing=ListingSettings(page=4, kept_repos=4, kept_generations=2))
    first = catalog.search_repos(BY_DOWNLOADS, 6, "")
    for number in range(4):
        catalog.search_repos(CatalogQuery(search=f"model-0{number}"), 6, "")
    assert first.next_token is not None

    rest = catalog.search_repos(BY_DOWNLOADS, 6, first.next_token)

    assert [repo.repo for repo in (*first.repos, *rest.repos)] == list(REPOS)


def test_a_repository_that_vanished_is_left_out_and_the_page_stays(
    catalog: HubCatalog, hub: FaultyHub, folder: Path
) -> None:
    catalog.search_variants(BY_DOWNLOADS, 2, 0)
    hub.hide(REPOS[9], "another token")

    found = variants(catalog, BY_DOWNLOADS)

    assert found == [name for name in ALL if REPOS[9] not in name]


def test_a_repository_that_moved_on_is_listed_as_it_is_now(
    make_catalog: MakeCatalog, hub: FaultyHub, folder: Path
) -> None:
    catalog = make_catalog(parallel_calls=1)
    catalog.search_repos(BY_DOWNLOADS, 1, "")
    for path in (folder / REPOS[3]).glob("*"):
        path.unlink()
    make_repo(folder, REPOS[3], {"other-Q6_K.gguf": 66})

    found = variants(catalog, BY_DOWNLOADS)

    assert [name for name in found if REPOS[3] in name] == [f"hf/{REPOS[3]}/other-Q6_K.gguf"]
    assert len(found) == len(ALL) - 1


@pytest.mark.parametrize("token", ["x", "bm9wZQ", "WyJhIiwtMV0", "W10", "é", "A" * 5000])
def test_a_token_that_we_did_not_give_is_refused(catalog: HubCatalog, token: str) -> None:
    with pytest.raises(InvalidPageToken):
        catalog.search_repos(BY_DOWNLOADS, 5, token)


def test_a_token_of_another_search_is_refused(catalog: HubCatalog) -> None:
    token = catalog.search_repos(BY_DOWNLOADS, 5, "").next_token
    assert token is not None

    with pytest.raises(InvalidPageToken):
        catalog.search_repos(CatalogQuery(search="other"), 5, token)


@pytest.mark.parametrize(
    "query",
    [CatalogQuery(search="x" * 300), CatalogQuery(search="a\x00b"), CatalogQuery(author="a/b")],
)
def test_a_search_without_sense_is_refused(catalog: HubCatalog, query: CatalogQuery) -> None:
    with pytest.raises(InvalidArgument):
        catalog.search_variants(query, 5, 0)


def test_a_hub_that_names_no_commits_yet_is_asked_for_them(
    catalog: HubCatalog, hub: FaultyHub
) -> None:
    body = f'[{{"id": "{REPOS[0]}", "downloads": 5}}]'.encode()
    hub.script("/api/models", Answer(200, body))

    assert variants(catalog, BY_DOWNLOADS) == ALL[:2]
