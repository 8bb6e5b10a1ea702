"""Gated repositories, the token, addresses of files, and headers read over the wire."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploy.demo.models import make_model
from router.domain.catalog import CatalogQuery, FileUrl, Gating, Sort
from router.domain.choice import choose
from router.domain.errors import (
    DomainError,
    FileNotInRepo,
    HubGated,
    HubUnavailable,
    InvalidModelName,
    RepoNotFound,
    RevisionNotFound,
)
from router.hub.catalog import HubCatalog
from tests.fakes.hub import Answer, FaultyHub, IgnoreRange, ResetAfter, make_repo
from tests.hub.conftest import REPOS, Clock, MakeCatalog
from tests.hub.gguf_bytes import header
from tests.hub.memory_cache import MemoryCache

TOKEN = "hf_marker0marker1marker2marker3marker"
GATED = REPOS[0]


@pytest.fixture
def gguf(folder: Path) -> str:
    """A repository with a real model."""
    make_model(folder / "real/tiny-GGUF" / "tiny-Q8_0.gguf", "Q8_0", chat=True)
    return "real/tiny-GGUF"


def test_a_repository_is_read_at_the_commit_that_its_branch_names_now(
    catalog: HubCatalog, folder: Path
) -> None:
    before = catalog.repo(REPOS[0], "main")
    make_repo(folder, REPOS[0], {"m-Q2_K.gguf": 50})

    now = catalog.repo(REPOS[0], "main")

    assert now.commit != before.commit
    assert [v.quantization for v in now.variants] == ["Q2_K", "Q4_K_M", "Q8_0"]
    assert catalog.repo(REPOS[0], before.commit).variants == before.variants


@pytest.mark.parametrize(
    ("repo", "revision", "error"),
    [
        ("nobody/nothing", "main", RepoNotFound),
        (REPOS[0], "no-such-branch", RevisionNotFound),
        (REPOS[0], "0" * 40, RevisionNotFound),
        ("../etc/passwd", "main", InvalidModelName),
        ("plain", "main", InvalidModelName),
        (REPOS[0], "a..b", InvalidModelName),
    ],
)
def test_what_is_not_there_is_told_by_kind(
    catalog: HubCatalog, repo: str, revision: str, error: type[DomainError]
) -> None:
    with pytest.raises(error):
        catalog.repo(repo, revision)


def test_a_private_repository_is_seen_with_the_token_only(
    make_catalog: MakeCatalog, hub: FaultyHub
) -> None:
    hub.hide(REPOS[1], TOKEN)

    assert make_catalog(token=TOKEN).repo(REPOS[1], "main").variants
    with pytest.raises(RepoNotFound):
        make_catalog().repo(REPOS[1], "main")


def test_a_gated_repository_is_marked_and_says_where_to_ask(
    make_catalog: MakeCatalog, hub: FaultyHub
) -> None:
    hub.gate(GATED, TOKEN)
    without, with_token = make_catalog(), make_catalog(token=TOKEN)
    repo = without.repo(GATED, "main")
    path = repo.variants[0].filename

    with pytest.raises(HubGated, match=f"no token: ask at {hub.url}/{GATED}"):
        without.file_url(GATED, repo.commit, path)

    assert repo.gating is Gating.MANUAL
    assert with_token.file_url(GATED, repo.commit, path).url.startswith(hub.url)


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_the_hub_does_not_accept_is_no_outage(
    status: int, make_catalog: MakeCatalog, hub: FaultyHub
) -> None:
    hub.always("/api/models", Answer(status, b"Invalid credentials"))

    with pytest.raises(HubGated, match="token has no access"):
        make_catalog(token=TOKEN).search_variants(CatalogQuery(), 5, 0)


# --- addresses of files ---


def test_without_a_redirect_the_address_is_the_hubs_own(
    catalog: HubCatalog, hub: FaultyHub
) -> None:
    repo = catalog.repo(REPOS[0], "main")

    found = catalog.file_url(REPOS[0], repo.commit, "m-Q8_0.gguf")

    assert found == FileUrl(f"{hub.url}/{REPOS[0]}/resolve/{repo.commit}/m-Q8_0.gguf", None)
    assert hub.bytes_served("m-Q8_0.gguf") == 0


@pytest.mark.parametrize("second_origin", [True, False])
def test_a_signed_address_is_handed_on_with_its_end(
    second_origin: bool, folder: Path, make_catalog: MakeCatalog, hub: FaultyHub
) -> None:
    with FaultyHub(folder, signed_urls=True, second_origin=second_origin) as signing:
        catalog = make_catalog(url=signing.url, token=TOKEN)
        commit = catalog.repo(REPOS[0], "main").commit

        found = catalog.file_url(REPOS[0], commit, "m-Q8_0.gguf")

        assert found.url.startswith(f"{signing.cdn_url}/")
        assert found.expires_at is not None
        left = found.expires_at - datetime.now(UTC)
        assert timedelta(minutes=50) < left <= timedelta(hours=1)
        assert TOKEN not in found.url


@pytest.mark.parametrize(
    ("query", "lives"),
    [
        ("X-Amz-Date=20260101T000000Z&X-Amz-Expires=3600&X-Amz-Signature=1", 3600),
        ("X-Amz-Date=20251231T235000Z&X-Amz-Expires=900&X-Amz-Signature=1", 300),
        ("Expires=1767226200&Policy=p&Signature=s&Key-Pair-Id=k", 600),
        ("X-Amz-Expires=3600&X-Amz-Signature=1&Expires=1767226200", 600),
        ("exp=1767225690&sig=x", 90),
        ("X-Amz-Signature=unreadable&X-Amz-Expires=soon&Expires=-1", 300),
        ("", 300),
    ],
)
def test_an_address_says_itself_when_it_ends(
    query: str, lives: int, catalog: HubCatalog, hub: FaultyHub, clock: Clock
) -> None:
    target = f"https://cdn.example/x?{query}"
    hub.always("*/resolve/*", Answer(302, b"", {"location": target}), method="HEAD")

    found = catalog.file_url(REPOS[0], "0" * 40, "m.gguf")

    assert found == FileUrl(target, clock.wall() + timedelta(seconds=lives))


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://x/y", "http://[broken", "", "?"])
def test_a_redirect_to_a_strange_place_is_not_handed_on(
    location: str, catalog: HubCatalog, hub: FaultyHub
) -> None:
    hub.always("*/resolve/*", Answer(302, b"", {"location": location}), method="HEAD")

    try:
        found = catalog.file_url(REPOS[0], "0" * 40, "m.gguf")
    except HubUnavailable:
        return
    assert found.url.startswith(hub.url)


def test_an_address_is_used_again_for_a_while_only(
    catalog: HubCatalog, hub: FaultyHub, clock: Clock
) -> None:
    commit = catalog.repo(REPOS[0], "main").commit
    for seconds, calls in [(0, 1), (30, 1), (31, 2)]:
        clock.pass_by(seconds)
        catalog.file_url(REPOS[0], commit, "m-Q8_0.gguf")
        assert len(hub.requests_for("m-Q8_0.gguf", "HEAD")) == calls


def test_a_file_that_is_not_there_has_no_address(catalog: HubCatalog) -> None:
    commit = catalog.repo(REPOS[0], "main").commit

    with pytest.raises(FileNotInRepo, match="has no file"):
        catalog.file_url(REPOS[0], commit, "other.gguf")
    with pytest.raises(InvalidModelName):
        catalog.file_url(REPOS[0], commit, "../other.gguf")


# --- headers ---


def test_a_header_is_read_over_the_wire_once(
    catalog: HubCatalog, hub: FaultyHub, gguf: str
) -> None:
    repo = catalog.repo(gguf, "main")
    variant = choose(repo)

    first = catalog.facts(gguf, repo.commit, variant)
    calls = len(hub.requests)
    second = catalog.facts(gguf, repo.commit, variant)

    assert first == second
    assert first is not None
    assert (first.architecture, first.vocabulary) == ("llama", 400)
    assert len(hub.requests) == calls


def test_what_is_no_gguf_has_no_facts_and_is_not_read_again(
    catalog: HubCatalog, hub: FaultyHub
) -> None:
    repo = catalog.repo(REPOS[0], "main")

    assert catalog.facts(REPOS[0], repo.commit, repo.variants[0]) is None
    calls = len(hub.requests)
    assert catalog.facts(REPOS[0], repo.commit, repo.variants[0]) is None
    assert len(hub.requests) == calls


def test_a_header_that_did_not_arrive_is_asked_for_again(
    catalog: HubCatalog, hub: FaultyHub, gguf: str
) -> None:
    repo = catalog.repo(gguf, "main")
    hub.script("*/resolve/*", ResetAfter(100))

    with pytest.raises(HubUnavailable):
        catalog.facts(gguf, repo.commit, choose(repo))

    assert catalog.facts(gguf, repo.commit, choose(repo)) is not None


def test_a_server_without_ranges_serves_the_beginning_all_the_same(
    catalog: HubCatalog, hub: FaultyHub, gguf: str
) -> None:
    repo = catalog.repo(gguf, "main")
    hub.always("*/resolve/*", IgnoreRange())

    assert catalog.facts(gguf, repo.commit, choose(repo)) is not None


def test_a_server_without_ranges_cannot_serve_a_long_header(
    catalog: HubCatalog, hub: FaultyHub, folder: Path
) -> None:
    tokens = [f"token {number}" for number in range(30_000)]
    content = header({"general.architecture": "llama", "tokenizer.ggml.tokens": tokens})
    make_repo(folder, "long/header-GGUF", {"m-Q8_0.gguf": content})
    repo = catalog.repo("long/header-GGUF", "main")
    hub.script("*/resolve/*", IgnoreRange(), IgnoreRange())

    with pytest.raises(HubUnavailable, match="gives no part"):
        catalog.facts(repo.repo, repo.commit, repo.variants[0])

    facts = catalog.facts(repo.repo, repo.commit, repo.variants[0])
    assert facts is not None
    assert facts.vocabulary == 30_000


# --- the token ---


def test_the_token_is_sent_to_the_hub_only_and_kept_nowhere(
    folder: Path,
    gguf: str,
    make_catalog: MakeCatalog,
    cache: MemoryCache,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    errors: list[DomainError] = []
    with FaultyHub(folder, second_origin=True) as hub:
        catalog = make_catalog(token=TOKEN, url=hub.url)
        catalog.search_variants(CatalogQuery(sort=Sort.DOWNLOADS), 5, 0)
        repo = catalog.repo(gguf, "main")
        catalog.facts(gguf, repo.commit, choose(repo))
        found = catalog.file_url(gguf, repo.commit, "tiny-Q8_0.gguf")
        hub.always("*", Answer(302, b"", {"location": f"{hub.cdn_url}/elsewhere"}))
        for fault in (None, Answer(500), Answer(403), Answer(418, b"x")):
            if fault is not None:
                hub.heal()
                hub.always("*", fault)
            with pytest.raises(DomainError) as caught:
                catalog.repo(REPOS[2], "main")
            errors.append(caught.value)
        hub.stop()
        with pytest.raises(DomainError) as caught:
            catalog.repo(REPOS[2], "main")
        errors.append(caught.value)
        requests = hub.requests

    assert {r.authorization for r in requests if r.origin == "hub"} == {f"Bearer {TOKEN}"}
    assert {r.authorization for r in requests if r.origin == "cdn"} == {None}
    assert all(TOKEN not in r.path + r.query for r in requests)
    assert TOKEN not in found.url
    assert TOKEN not in caplog.text
    assert all(TOKEN not in f"{e!r}{e.__cause__!r}{e.__context__!r}" for e in errors)
    assert all(TOKEN.encode() not in body for body, _ in cache.rows.values())
    assert TOKEN not in repr(vars(catalog))


def test_a_token_of_the_machine_is_not_taken(
    make_catalog: MakeCatalog, hub: FaultyHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    make_catalog().search_variants(CatalogQuery(), 5, 0)

    assert {request.authorization for request in hub.requests} == {None}
