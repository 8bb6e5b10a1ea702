"""What an operator is warned of when a model is registered."""

from dataclasses import replace

import pytest

from router.domain.catalog import CatalogRepo, FileRole, Gating, ModelFile
from router.services.models import Registration
from tests.fakes.catalog import FACTS, convertible_repo, digest, gguf_repo, variant
from tests.services.world import GB, World


def warnings(world: World, repo: CatalogRepo) -> list[str]:
    """What is said about the repository's first variant when it is registered."""
    world.catalog.repos[repo.repo] = repo
    return world.models.register(Registration(repo.repo))[1]


def of_size(size: int) -> CatalogRepo:
    """A repository with one file."""
    repo = f"o/of-{size}"
    return gguf_repo(repo, variant(repo, "big.gguf", "F16", size))


def test_a_small_open_model_that_fits_warns_of_nothing(world: World) -> None:
    world.connect()

    assert warnings(world, gguf_repo("o/small")) == []


def test_the_node_with_the_most_disk_is_named(world: World) -> None:
    world.connect("node-1", free=3 * GB)
    world.connect("node-2", free=4_500_000_000)
    world.sessions.close(world.connect("node-3", free=100 * GB))  # offline

    [text] = warnings(world, of_size(5 * GB))

    assert text == (
        'no online node has 5.0 GB of free disk for it: the most is 4.5 GB, on "node-2"'
    )
    assert warnings(world, of_size(4 * GB)) == []


def test_a_fleet_that_is_offline_is_told(world: World) -> None:
    assert warnings(world, gguf_repo("o/nobody")) == []  # there are no nodes at all
    world.sessions.close(world.connect())

    [text] = warnings(world, gguf_repo("o/small"))

    assert text.startswith("no node is online")


def test_memory_is_that_of_the_machine_or_of_its_graphics_processors(world: World) -> None:
    world.connect()  # 64 GB, and 24 GB of GPU memory

    assert warnings(world, of_size(45 * GB)) == []
    [text] = warnings(world, of_size(64 * GB - 1))[:1]

    assert text == (
        "no node has the 64.1 GB of memory or GPU memory that it is estimated to need: "
        'the most is 64.0 GB, on "node-1"'
    )


def test_more_than_fifty_gigabytes_are_large(world: World) -> None:
    world.connect(free=200 * GB)

    assert warnings(world, of_size(50 * GB)) == []
    assert warnings(world, of_size(50 * GB + 1)) == ["it is large: 50.0 GB"]


@pytest.mark.parametrize(
    ("named", "warned"),
    [("apache-2.0", False), ("MIT", False), (None, False), ("llama3.1", True), ("other", True)],
)
def test_a_licence_with_terms_of_its_own_is_named(
    world: World, named: str | None, warned: bool
) -> None:
    texts = warnings(world, replace(gguf_repo("o/small"), license=named))

    assert [f'its licence, "{named}"' in text for text in texts] == [True] * warned


def test_the_licence_of_the_file_counts_when_the_hub_tells_none(world: World) -> None:
    world.catalog.header = replace(FACTS, license="gemma")

    [text] = warnings(world, gguf_repo("o/small"))

    assert '"gemma"' in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gating": Gating.AUTO}, "is gated: access is granted when it is asked for"),
        ({"gating": Gating.MANUAL}, "is gated: its owner grants access"),
        ({"private": True}, "is private"),
    ],
)
def test_a_gate_is_told_with_its_kind(world: World, changes: dict[str, object], words: str) -> None:
    [text] = warnings(world, replace(gguf_repo("o/small"), **changes))  # type: ignore[arg-type]

    assert words in text


def test_unusual_files_are_named(world: World) -> None:
    raw = convertible_repo("o/raw")
    pickle = ModelFile("pytorch_model.bin", 900, digest(7), FileRole.WEIGHTS)

    [unknown] = warnings(world, gguf_repo("o/git", variant("o/git", "m.gguf", "", sha256=None)))
    [code] = warnings(world, replace(raw, conversion_files=(pickle,)))
    world.catalog.header = None
    [header] = warnings(world, gguf_repo("o/strange"))

    assert 'no SHA-256 of "m.gguf"' in unknown
    assert code.startswith('"pytorch_model.bin" is a Python pickle')
    assert header.startswith("its GGUF header could not be read")
