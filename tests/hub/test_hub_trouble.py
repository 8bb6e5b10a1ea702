"""The Hub is down, slow, limits us or talks nonsense: the last good page, or a plain error."""

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from router.domain.catalog import CatalogQuery, Sort, VariantPage
from router.domain.errors import DomainError, HubRateLimited, HubUnavailable
from router.hub.catalog import HubCatalog
from router.hub.client import Bounds, Timing
from router.hub.listings import ListingSettings
from tests.fakes.hub import (
    Answer,
    Fault,
    FaultyHub,
    ReplaceHeaders,
    ResetAfter,
    StallAfter,
    TruncateAfter,
    garbage_json,
    html_page,
    make_repo,
    rate_limited,
)
from tests.hub.conftest import REPOS, Clock, MakeCatalog
from tests.hub.memory_cache import MemoryCache
from tests.support import eventually

BY_DOWNLOADS = CatalogQuery(sort=Sort.DOWNLOADS)
LISTING, TREES = "/api/models", "/api/models/*/tree/*"
FAULTS: dict[str, Fault] = {
    "500": Answer(500, b"oops"),
    "503": Answer(503, b""),
    "a login page": html_page(),
    "garbage": garbage_json(),
    "half an answer": TruncateAfter(40),
    "a reset": ResetAfter(40),
    "another shape": Answer(200, b'{"error": "no list"}', {"content-type": "application/json"}),
    "a list of nonsense": Answer(200, b'[1, {"id": "../x", "sha": 7}]'),
    "deep nesting": Answer(200, b"[" * 200_000),
    "a broken link to more": ReplaceHeaders({"link": '<http://[x>; rel="next"'}),
    "a link without a cursor": ReplaceHeaders({"link": '</api/models>; rel="next"'}),
    "not found": Answer(404, b""),
    "a redirect elsewhere": Answer(302, b"", {"location": "http://127.0.0.1:1/x"}),
    "a redirect in circles": Answer(302, b"", {"location": "/api/models"}),
}


def once_stale(catalog: HubCatalog) -> VariantPage:
    """The first page, as soon as it is marked."""

    def stale() -> VariantPage | None:
        page = catalog.search_variants(BY_DOWNLOADS, 6, 0)
        return page if page.freshness.stale else None

    page = eventually(stale)
    assert page is not None
    return page


def names(page: VariantPage) -> list[str]:
    return [entry.variant.name for entry in page.entries]


def test_an_old_page_is_served_and_marked_while_the_list_fails(
    make_catalog: MakeCatalog, hub: FaultyHub, clock: Clock
) -> None:
    for kind, fault in FAULTS.items():
        hub.heal()
        catalog = make_catalog(cache=MemoryCache())
        before = catalog.search_variants(BY_DOWNLOADS, 6, 0)
        hub.always(LISTING, fault)
        clock.pass_by(400)

        page = once_stale(catalog)

        assert names(page) == names(before), kind
        assert page.freshness.fetched_at == before.freshness.fetched_at, kind
        assert page.freshness.cached, kind
        assert page.freshness.problem, kind


@pytest.mark.parametrize("where", [LISTING, TREES])
def test_without_an_old_page_the_error_is_plain(
    where: str, make_catalog: MakeCatalog, hub: FaultyHub
) -> None:
    for kind, fault in FAULTS.items():
        if where == TREES and kind in ("not found", "a redirect in circles"):
            continue  # a repository that vanished, and a list where a tree should be
        hub.heal()
        hub.always(where, fault)

        with pytest.raises(HubUnavailable):
            make_catalog(cache=MemoryCache()).search_variants(BY_DOWNLOADS, 6, 0)


def test_a_token_that_was_withdrawn_does_not_hide_what_is_known(
    catalog: HubCatalog, hub: FaultyHub, clock: Clock
) -> None:
    before = catalog.search_variants(BY_DOWNLOADS, 6, 0)
    hub.always(LISTING, Answer(401, b""))
    clock.pass_by(10_000)

    page = catalog.search_variants(BY_DOWNLOADS, 6, 0)

    assert names(page) == names(before)
    assert page.freshness.stale


def test_after_the_trouble_the_catalog_is_fresh_again(
    catalog: HubCatalog, hub: FaultyHub, clock: Clock
) -> None:
    catalog.search_variants(BY_DOWNLOADS, 6, 0)
    hub.always(LISTING, FAULTS["500"])
    clock.pass_by(400)
    once_stale(catalog)
    hub.heal()
    clock.pass_by(60)

    page = eventually(
        lambda: not (p := catalog.search_variants(BY_DOWNLOADS, 6, 0)).freshness.stale and p
    )

    assert page
    assert page.freshness.fetched_at == clock.wall()
    assert page.freshness.problem == ""


def test_a_refresh_that_misses_one_repository_does_not_replace_the_old_page(
    catalog: HubCatalog, hub: FaultyHub, clock: Clock, cache: MemoryCache
) -> None:
    before = catalog.search_variants(BY_DOWNLOADS, 6, 0)
    hub.set_standing(REPOS[-1], downloads=9999)
    hub.always(f"/api/models/{REPOS[-1]}/tree/*", FAULTS["500"])
    clock.pass_by(400)

    page = once_stale(catalog)

    assert names(page) == names(before)


def test_what_did_arrive_of_a_failed_page_is_not_asked_for_again(
    catalog: HubCatalog, hub: FaultyHub
) -> None:
    hub.script(f"/api/models/{REPOS[2]}/tree/*", FAULTS["500"])
    with pytest.raises(HubUnavailable):
        catalog.search_repos(BY_DOWNLOADS, 4, "")

    page = catalog.search_repos(BY_DOWNLOADS, 4, "")

    trees = [r.path for r in hub.requests if "/tree/" in r.path]
    assert [repo.repo for repo in page.repos] == list(REPOS[:4])
    assert len(trees) == 5
    assert len(set(trees)) == 4


def test_a_failed_call_is_tried_again_before_the_page_fails(
    make_catalog: MakeCatalog, hub: FaultyHub
) -> None:
    catalog = make_catalog(timing=Timing(waits=(0.0, 0.0)))
    hub.script(LISTING, FAULTS["500"], FAULTS["half an answer"])

    assert catalog.search_repos(BY_DOWNLOADS, 4, "").repos


@pytest.mark.parametrize("where", [LISTING, TREES])
def test_a_limit_is_told_with_its_wait_and_kept(
    where: str, make_catalog: MakeCatalog, hub: FaultyHub, clock: Clock
) -> None:
    catalog = make_catalog(parallel_calls=1)
    hub.script(where, rate_limited(55))
    with pytest.raises(HubRateLimited) as first:
        catalog.search_variants(BY_DOWNLOADS, 2, 0)
    calls = len(hub.requests)
    clock.pass_by(50)

    with pytest.raises(HubRateLimited) as second:
        catalog.search_variants(BY_DOWNLOADS, 2, 0)
    assert first.value.retry_after == pytest.approx(55)
    assert second.value.retry_after == pytest.approx(5)
    assert len(hub.requests) == calls

    clock.pass_by(6)
    assert catalog.search_variants(BY_DOWNLOADS, 2, 0).entries


def test_a_limited_list_is_served_as_it_was(
    catalog: HubCatalog, hub: FaultyHub, clock: Clock
) -> None:
    before = catalog.search_variants(BY_DOWNLOADS, 6, 0)
    hub.always(LISTING, rate_limited(120))
    clock.pass_by(400)

    page = once_stale(catalog)

    assert names(page) == names(before)
    assert "limits our requests" in page.freshness.problem


def test_the_last_call_of_a_window_is_not_followed_by_another(
    make_catalog: MakeCatalog, hub: FaultyHub
) -> None:
    catalog = make_catalog(parallel_calls=1)
    hub.script(LISTING, ReplaceHeaders({"RateLimit": '"api";r=0;t=30'}))

    with pytest.raises(HubRateLimited):
        catalog.search_variants(BY_DOWNLOADS, 2, 0)

    assert len(hub.requests) == 1


def test_a_hub_that_is_down_is_asked_little(
    make_catalog: MakeCatalog, hub: FaultyHub, clock: Clock
) -> None:
    catalog = make_catalog(timing=Timing(waits=(0.0, 0.0)))
    catalog.search_variants(BY_DOWNLOADS, 6, 0)
    hub.always("*", FAULTS["503"])
    before = len(hub.requests)
    clock.pass_by(400)

    for number in range(200):
        assert catalog.search_variants(BY_DOWNLOADS, 6, 0).entries
        with pytest.raises(HubUnavailable):
            catalog.search_variants(CatalogQuery(search=f"other {number}"), 6, 0)

    assert len(hub.requests) - before <= 20


def test_a_slow_hub_does_not_make_the_page_slow(
    make_catalog: MakeCatalog, hub: FaultyHub, clock: Clock
) -> None:
    catalog = make_catalog(timing=Timing(answer=30.0, whole=60.0, waits=()))
    before = catalog.search_variants(BY_DOWNLOADS, 6, 0)
    stall = StallAfter(10)
    hub.always(LISTING, stall)
    clock.pass_by(400)

    page = catalog.search_variants(BY_DOWNLOADS, 6, 0)
    assert stall.reached.wait(10)
    clock.pass_by(5)
    later = catalog.search_variants(BY_DOWNLOADS, 6, 0)

    stall.release()
    assert names(page) == names(later) == names(before)
    assert (page.freshness.stale, later.freshness.stale) == (False, True)
    assert later.freshness.problem == "the Hub is slow to answer"


def test_a_silent_hub_ends_in_an_error(make_catalog: MakeCatalog, hub: FaultyHub) -> None:
    catalog = make_catalog(timing=Timing(answer=0.2, waits=()))
    stall = StallAfter(0)
    hub.always(LISTING, stall)

    with pytest.raises(HubUnavailable, match="takes too long"):
        catalog.search_variants(BY_DOWNLOADS, 6, 0)
    stall.release()


def test_an_answer_in_drips_ends_in_an_error(make_catalog: MakeCatalog, hub: FaultyHub) -> None:
    catalog = make_catalog(timing=Timing(whole=0.2, waits=()))
    hub.connection_rate = 200

    with pytest.raises(HubUnavailable, match="takes too long to answer"):
        catalog.search_variants(BY_DOWNLOADS, 6, 0)


def test_an_answer_without_end_is_cut_off(make_catalog: MakeCatalog, hub: FaultyHub) -> None:
    catalog = make_catalog(bounds=Bounds(body_bytes=1000))
    hub.always(LISTING, Answer(200, b"[" + b" " * 100_000 + b"]"))

    with pytest.raises(HubUnavailable, match="too large"):
        catalog.search_variants(BY_DOWNLOADS, 6, 0)


def test_after_a_restart_with_the_hub_off_the_catalog_still_browses(
    make_catalog: MakeCatalog, hub: FaultyHub, clock: Clock
) -> None:
    before = make_catalog()
    pages = [before.search_variants(BY_DOWNLOADS, 6, offset) for offset in (0, 6, 12, 18)]
    before.close()
    hub.stop()
    clock.pass_by(timedelta(days=3).total_seconds())
    catalog = make_catalog()

    again = [catalog.search_variants(BY_DOWNLOADS, 6, offset) for offset in (0, 6, 12, 18)]

    assert [names(page) for page in again] == [names(page) for page in pages]
    assert all(page.freshness.stale for page in again)
    assert again[-1].total == 24
    assert "no connection" in again[0].freshness.problem


def test_a_list_that_grew_is_refreshed_with_what_came_to_it(
    make_catalog: MakeCatalog, hub: FaultyHub, folder: Path, clock: Clock
) -> None:
    catalog = make_catalog(listing=ListingSettings(page=100))
    catalog.search_variants(BY_DOWNLOADS, 100, 0)
    make_repo(folder, "late/comer-GGUF", {"l-Q8_0.gguf": 5})
    clock.pass_by(400)
    eventually(
        lambda: catalog.search_variants(BY_DOWNLOADS, 1, 0).freshness.fetched_at == clock.wall()
    )
    catalog.close()
    hub.stop()

    page = make_catalog().search_variants(BY_DOWNLOADS, 100, 0)

    assert page.total == 25
    assert names(page)[-1] == "hf/late/comer-GGUF/l-Q8_0.gguf"


def test_a_vanished_repository_stays_left_out_after_a_restart_with_the_hub_off(
    make_catalog: MakeCatalog, hub: FaultyHub
) -> None:
    hub.script(f"/api/models/{REPOS[1]}/tree/*", Answer(404, b"", {"x-error-code": "RepoNotFound"}))
    before = make_catalog()
    pages = names(before.search_variants(BY_DOWNLOADS, 6, 0))
    before.close()
    hub.stop()

    assert names(make_catalog().search_variants(BY_DOWNLOADS, 6, 0)) == pages


def test_damaged_rows_are_fetched_again(
    make_catalog: MakeCatalog, cache: MemoryCache, clock: Clock
) -> None:
    before = make_catalog()
    page = before.search_variants(BY_DOWNLOADS, 6, 0)
    before.close()
    for kind, key in list(cache.rows):
        cache.put(kind, key, b"damaged", clock.wall())

    assert names(make_catalog().search_variants(BY_DOWNLOADS, 6, 0)) == names(page)


def test_closing_ends_those_who_wait(make_catalog: MakeCatalog, hub: FaultyHub) -> None:
    catalog = make_catalog(timing=Timing(answer=30.0, whole=60.0))
    stall = StallAfter(0)
    hub.always(TREES, stall)
    errors: list[DomainError] = []

    def ask() -> None:
        try:
            catalog.search_variants(BY_DOWNLOADS, 20, 0)
        except DomainError as error:
            errors.append(error)

    waiting = threading.Thread(target=ask)
    waiting.start()
    assert stall.reached.wait(10)

    catalog.close()
    stall.release()
    waiting.join(10)

    assert not waiting.is_alive()
    assert [type(error) for error in errors] == [HubUnavailable]


def test_lists_are_only_compared_when_they_are_not_endless(
    make_catalog: MakeCatalog, hub: FaultyHub
) -> None:
    catalog = make_catalog(listing=ListingSettings(page=4, compared=5))

    page = catalog.search_variants(BY_DOWNLOADS, 100, 0)

    assert page.total == 24
    assert len(hub.requests_for(LISTING)) == 3
