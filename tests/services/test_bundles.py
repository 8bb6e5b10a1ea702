"""Offline bundles: what goes out comes in, and nothing else does."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from router.domain.errors import InsufficientDisk, ModelExists, ModelNotFound
from router.services import tar
from router.services.bundle_index import BadBundle
from router.services.bundles import NotHeld
from tests.services.depot import (
    OTHER,
    PROJECTOR,
    WEIGHTS,
    Depot,
    packed,
    sha256,
    unpacked,
)

HERE = "127.0.0.1:7001"
THERE = "127.0.0.1:7002"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    depot = Depot(tmp_path_factory.mktemp("origin"))
    depot.hold("node-1", HERE)
    return depot.export()


@pytest.fixture
def site(tmp_path: Path) -> Depot:
    return Depot(tmp_path / "site", registered=False)


def altered(bundle: bytes, change: Callable[[Any], None]) -> bytes:
    """The bundle with another index."""
    (name, index), *rest = unpacked(bundle)
    document = json.loads(index)
    change(document)
    return packed([(name, json.dumps(document).encode()), *rest])


def refused(site: Depot, bundle: bytes, error: type[Exception] = BadBundle) -> str:
    """Imports what must be refused, and sees to it that nothing is left of it."""
    with pytest.raises(error) as raised:
        site.take_in(bundle)
    assert site.world.store.models() == []
    assert site.leftovers() == []
    return str(raised.value)


def test_a_bundle_is_a_tar_file_with_its_index_first_and_each_content_once(bundle: bytes) -> None:
    (first, index), *contents = unpacked(bundle)

    assert first == "bundle.json"
    names = [model["name"] for model in json.loads(index)["models"]]
    assert names == ["hf/o/a/m-Q4_K_M.gguf", "hf/o/b/m-Q4_K_M.gguf"]
    assert contents == [(f"blobs/{sha256(one)}", one) for one in (WEIGHTS, PROJECTOR, OTHER)]


@pytest.mark.parametrize("step", [1, 511, 512, 100_000])
def test_what_was_exported_is_registered_the_same_at_another_site(
    bundle: bytes, site: Depot, tmp_path: Path, step: int
) -> None:
    origin = Depot(tmp_path / "origin")

    imported = site.take_in(bundle, step)

    assert [known for _, known in imported.models] == [False, False]
    assert imported.new_bytes == len(WEIGHTS) + len(OTHER) + len(PROJECTOR)
    for repo in ("o/a", "o/b"):
        ours, theirs = site.model(repo), origin.model(repo)
        assert ours.manifest == theirs.manifest
        assert (ours.facts, ours.display_name) == (theirs.facts, theirs.display_name)
    for content in (WEIGHTS, OTHER, PROJECTOR):
        kept = site.kept.find(sha256(content))
        assert kept is not None
        assert Path(kept.path).read_bytes() == content


def test_what_was_imported_can_be_exported_without_any_node(bundle: bytes, site: Depot) -> None:
    site.take_in(bundle)

    again = site.export()

    assert unpacked(again)[1:] == unpacked(bundle)[1:]


def test_an_import_can_be_repeated(bundle: bytes, site: Depot) -> None:
    site.take_in(bundle)

    again = site.take_in(bundle)

    assert [known for _, known in again.models] == [True, True]
    assert again.new_bytes == 0


def test_a_restart_knows_what_is_kept_and_forgets_what_was_not_finished(
    bundle: bytes, site: Depot
) -> None:
    site.take_in(bundle)
    taking = site.bundles.take_in()
    taking.feed(altered(bundle, lambda _: None)[:4000])
    site.kept.take_in().begin(sha256(b"x"))

    site.restart()

    assert site.kept.has(sha256(WEIGHTS))
    assert all(name.startswith("blobs/") for name in site.leftovers())


def test_contents_go_with_the_last_model_that_needs_them(bundle: bytes, site: Depot) -> None:
    site.take_in(bundle)
    site.world.models.unregister("o/a")

    gone = site.bundles.collect()

    assert gone == 1
    assert site.leftovers() == sorted(f"blobs/{sha256(one)}" for one in (OTHER, PROJECTOR))


def test_another_manifest_under_the_same_name_is_refused(bundle: bytes, site: Depot) -> None:
    repos = site.world.catalog.repos
    repos["o/b"] = replace(repos["o/b"], commit="d" * 40)
    site.world.register("o/b")

    with pytest.raises(ModelExists, match="is registered with other files"):
        site.take_in(bundle)

    assert [model.name for model in site.world.store.models()] == ["hf/o/b/m-Q4_K_M.gguf"]
    assert site.leftovers() == []


def test_a_bundle_that_does_not_fit_is_refused_before_its_contents_come(
    bundle: bytes, site: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site.kept, "free_bytes", lambda: 100)

    assert "has 100 free" in refused(site, bundle[: bundle.index(b"blobs/")], InsufficientDisk)


# Exports


def test_what_one_node_breaks_off_another_goes_on_with(tmp_path: Path) -> None:
    depot = Depot(tmp_path / "d")
    depot.hold("node-1", HERE)
    depot.hold("node-2", THERE)
    depot.reader.breaks[HERE] = 2000

    assert dict(unpacked(depot.export("o/a")))[f"blobs/{sha256(WEIGHTS)}"] == WEIGHTS
    assert {HERE, THERE} <= set(depot.reader.asked)


def test_a_node_that_sends_other_bytes_does_not_make_a_bundle(tmp_path: Path) -> None:
    depot = Depot(tmp_path / "d")
    depot.hold("node-1", HERE)
    depot.reader.lies.add(HERE)

    with pytest.raises(NotHeld, match="other bytes"):
        depot.export("o/a")


def test_a_model_that_nobody_holds_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    depot = Depot(tmp_path / "d")

    with pytest.raises(NotHeld, match=r"no node that is online holds .* order it onto one"):
        depot.bundles.export(["o/a"])
    with pytest.raises(ModelNotFound):
        depot.bundles.export(["o/none"])


# What is refused


def test_every_cut_is_noticed(bundle: bytes, site: Depot) -> None:
    for length in [0, 1, 511, 512, 2000, len(bundle) // 2, len(bundle) - 1024, len(bundle) - 1]:
        assert "cut short" in refused(site, bundle[:length])


def test_no_single_wrong_byte_gets_through(bundle: bytes, site: Depot, tmp_path: Path) -> None:
    """What counts is right or refused; names of owners in a header, say, count for nothing."""
    noise = random.Random(5)
    for place in noise.sample(range(len(bundle)), 150):
        wrong = bytearray(bundle)
        wrong[place] ^= 1 << noise.randrange(8)
        try:
            site.take_in(bytes(wrong), step=4096)
        except BadBundle:
            assert site.world.store.models() == []
            assert site.leftovers() == []
            continue
        for content in (WEIGHTS, OTHER, PROJECTOR):
            kept = site.kept.find(sha256(content))
            assert kept is not None
            assert Path(kept.path).read_bytes() == content
        site = Depot(tmp_path / f"site-{place}", registered=False)


def _first_file(document: Any) -> Any:
    return document["models"][0]["manifest"]["files"][0]


HOSTILE: dict[str, Callable[[Any], None]] = {
    "a path that climbs": lambda d: _first_file(d).update(path="../../etc/passwd"),
    "an absolute path": lambda d: _first_file(d).update(path="/etc/passwd"),
    "a negative size": lambda d: _first_file(d).update(size_bytes=-1),
    "an absurd size": lambda d: _first_file(d).update(size_bytes=10**30),
    "a size that is no number": lambda d: _first_file(d).update(size_bytes=True),
    "a digest that is a path": lambda d: _first_file(d).update(sha256="../" * 20 + "abcd"),
    "no digest": lambda d: _first_file(d).update(sha256=None),
    "another repository": lambda d: d["models"][0]["manifest"].update(repo="../x"),
    "another commit": lambda d: d["models"][0]["manifest"].update(commit="e" * 40),
    "another name": lambda d: d["models"][0].update(name="hf/o/z/m.gguf"),
    "a model twice": lambda d: d["models"].append(d["models"][0]),
    "no models": lambda d: d.update(models=[]),
    "a newer version": lambda d: d.update(version=2),
    "another format": lambda d: d.update(format="zip"),
    "facts of another kind": lambda d: d["models"][0]["facts"].update(layers="many"),
    "unknown facts": lambda d: d["models"][0]["facts"].update(extra=1),
    "facts beyond all numbers": lambda d: d["models"][0]["facts"].update(layers=2**40),
    "a lone surrogate": lambda d: d["models"][0].update(display_name="\ud800"),
    "an endless name": lambda d: d["models"][0].update(display_name="x" * 1000),
    "a missing manifest": lambda d: d["models"][0].pop("manifest"),
    "a list for a model": lambda d: d.update(models=[[1]]),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_an_index_that_was_altered_is_refused(
    bundle: bytes, site: Depot, change: Callable[[Any], None]
) -> None:
    assert refused(site, altered(bundle, change))


def test_members_are_what_the_index_names_and_nothing_else(bundle: bytes, site: Depot) -> None:
    index, *contents = unpacked(bundle)
    extra = (f"blobs/{sha256(b'x')}", b"x")

    assert "does not name" in refused(site, packed([index, *contents, extra]))
    assert "or one twice" in refused(site, packed([index, contents[0], *contents]))
    assert "does not name" in refused(site, packed([index, ("blobs/../../x", b"x")]))
    assert "does not name" in refused(site, packed([index, ("/etc/cron.d/x", b"x")]))
    assert "not a bundle" in refused(site, packed(contents))
    assert "before all files" in refused(site, packed([index, *contents[:-1]]))
    wrong = (contents[0][0], contents[0][1][::-1])
    assert "is damaged" in refused(site, packed([index, wrong, *contents[1:]]))


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"5", b"6", b"7", b"L", b"g", b"S"])
def test_links_folders_devices_and_extensions_are_refused(
    bundle: bytes, site: Depot, kind: bytes
) -> None:
    block = bytearray(tar.header("blobs/x", 0))
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    end_of_index = bundle.index(b"blobs/")

    assert refused(site, bundle[:end_of_index] + bytes(block) + bundle[end_of_index:])


def test_noise_is_refused(site: Depot) -> None:
    noise = random.Random(1)

    for length in (1, 600, 5000):
        assert refused(site, noise.randbytes(length))
    assert refused(site, bytes(5000))


def test_a_member_of_many_gigabytes_is_written_and_read_as_such() -> None:
    size = 40 * 10**9
    blocks = tar.header("blobs/x", size)

    first, second = tar.read_header(blocks[:512]), tar.read_header(blocks[1024:])

    assert len(blocks) == 1536
    assert first is not None
    assert second is not None
    assert first.extended
    assert tar.read_extended(blocks[512 : 512 + first.size]) == size
    assert second.name == "blobs/x"
