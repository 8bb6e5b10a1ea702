"""When a node that lists its files holds a model."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from router.domain.catalog import FileRole, ModelFile
from router.domain.models import Manifest
from router.domain.nodes import HeldFile, Inventory

START = datetime(2026, 1, 1, tzinfo=UTC)
COMMIT = "c" * 40
DIGESTS = ("a" * 64, "b" * 64)


def manifest(*digests: str | None) -> Manifest:
    """One file of ten bytes for each digest."""
    files = tuple(
        ModelFile(f"{number}.gguf", 10, digest, FileRole.MODEL)
        for number, digest in enumerate(digests)
    )
    return Manifest.pin(
        model_name="hf/o/r/0.gguf",
        repo="o/r",
        revision="main",
        commit=COMMIT,
        quantization="Q8_0",
        files=files,
    )


def held(number: int, sha256: str, *, minutes: int = 0, **changes: object) -> HeldFile:
    """The file of that number as a node lists it."""
    told: dict[str, object] = {
        "repo": "o/r",
        "commit": COMMIT,
        "path": f"{number}.gguf",
        "size_bytes": 10,
        "sha256": sha256,
        "verified_at": START + timedelta(minutes=minutes),
        **changes,
    }
    return HeldFile(**told)  # type: ignore[arg-type]


def test_a_model_is_held_since_its_last_file_was_verified() -> None:
    inventory = Inventory((held(0, "a" * 64, minutes=5), held(1, "b" * 64, minutes=3)), False)

    assert inventory.verified_at(manifest("a" * 64, "b" * 64)) == START + timedelta(minutes=5)


def test_a_model_is_not_held_while_a_file_is_missing() -> None:
    inventory = Inventory((held(0, "a" * 64),), False)

    assert inventory.verified_at(manifest("a" * 64, "b" * 64)) is None


def test_a_file_that_differs_in_anything_is_another_file() -> None:
    wanted = manifest("a" * 64)

    for changes in ({"repo": "o/x"}, {"commit": "d" * 40}, {"path": "1.gguf"}, {"size_bytes": 9}):
        inventory = Inventory((held(0, "a" * 64, **changes),), False)
        assert inventory.verified_at(wanted) is None
    assert Inventory((held(0, "b" * 64),), False).verified_at(wanted) is None


def test_a_file_without_a_registered_digest_counts_by_place_and_size() -> None:
    assert Inventory((held(0, "b" * 64),), False).verified_at(manifest(None)) == START


def test_equal_digests_are_bytes_that_need_not_be_fetched_whatever_their_name() -> None:
    inventory = Inventory((held(0, "a" * 64, path="other.gguf", repo="x/y"),), False)

    assert inventory.held_bytes(manifest("a" * 64, "b" * 64, None)) == 10


@given(st.lists(st.sampled_from(DIGESTS), min_size=1, max_size=4), st.data())
def test_a_model_is_held_exactly_when_every_file_is(
    digests: list[str], data: st.DataObject
) -> None:
    there = data.draw(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(DIGESTS)), max_size=8))
    unique = dict(there)  # a place holds one file
    inventory = Inventory(tuple(held(number, sha) for number, sha in unique.items()), False)

    every = all(unique.get(number) == digest for number, digest in enumerate(digests))

    assert (inventory.verified_at(manifest(*digests)) is not None) == every
