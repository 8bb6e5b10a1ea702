"""The catalog as it is shown: status, memory, windows."""

from router.domain.catalog import CatalogQuery
from router.domain.errors import HubUnavailable
from router.domain.memory import required_memory_bytes
from router.services.catalog import CatalogBrowser, VariantStatus
from router.services.models import Models, Registration
from tests.fakes.catalog import FACTS
from tests.services.world import World


def listed(browser: CatalogBrowser) -> int:
    """The memory of `o/r`'s variant as a page shows it."""
    [(_, view)] = browser.variants(CatalogQuery(search="o/r"), 5, 0).entries
    return view.required_memory_bytes


def test_a_page_reads_no_header_and_shows_what_is_known(world: World) -> None:
    before = listed(world.browser)

    shown = world.browser.repo("o/r", "main")

    assert before == required_memory_bytes(1000, None)
    assert shown.facts == FACTS
    assert shown.variants[0].required_memory_bytes == required_memory_bytes(1000, FACTS)
    assert listed(world.browser) == required_memory_bytes(1000, FACTS)


def test_a_registration_and_a_page_agree(world: World) -> None:
    model = world.register().model

    assert model.required_memory_bytes == listed(world.browser)
    [(_, view)] = world.browser.variants(CatalogQuery(search="o/r"), 5, 0).entries
    assert view.status is VariantStatus.REGISTERED


def test_a_repository_is_shown_although_its_headers_cannot_be_read(world: World) -> None:
    world.catalog.header = HubUnavailable("broken off")

    shown = world.browser.repo("o/r", "main")

    assert shown.facts is None
    assert shown.variants[0].required_memory_bytes == required_memory_bytes(1000, None)


def test_the_default_context_decides_everywhere(world: World) -> None:
    browser = CatalogBrowser(world.catalog, world.store, world.holdings, context=8192)
    models = Models(
        world.store,
        world.catalog,
        world.holdings,
        world.presence,
        world.board,
        world.watchers,
        world.clock,
        context=8192,
    )

    model = models.register(Registration("o/r"))[0].model

    assert model.required_memory_bytes == listed(browser)
    assert listed(browser) == required_memory_bytes(1000, FACTS, 8192) > listed(world.browser)
