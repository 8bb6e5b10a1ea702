"""The models are real GGUF files: readable, complete, and the same bytes every time."""

import hashlib
import re
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType, GGUFReader

from deploy.demo.models import (
    BIG,
    CATALOG,
    MIB,
    QUANTIZATIONS,
    SHARDED,
    make_catalog,
    make_model,
    make_shards,
)
from protos import names

# SHA-256 of all tensors, one after the other.
PINNED = {
    "F32": "7ea8c90a7dd867398e7b673cfb5128831b7faea280178319c2cc78030fabadb0",
    "Q8_0": "5c56a0f45100e691bf68a23b33dba70e45e814d1fff1620e51b864f1a2376894",
    "Q4_0": "cb28ee1fc2ff68dbdeb8415b334f646359be4fadcd7c0d8568cb9be7c0cd8827",
}


def digests(files: list[Path]) -> list[str]:
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def value(reader: GGUFReader, key: str) -> object:
    field = reader.get_field(key)
    assert field is not None, key
    return field.contents()


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_matrices_have_the_quantization_of_the_file_and_norms_stay_exact(
    tmp_path: Path, quantization: str
) -> None:
    path = make_model(tmp_path / "deep" / f"m-{quantization}.gguf", quantization)

    tensors = GGUFReader(path).tensors

    kinds = {len(tensor.shape): set[str]() for tensor in tensors}
    for tensor in tensors:
        kinds[len(tensor.shape)].add(tensor.tensor_type.name)
    assert kinds == {1: {"F32"}, 2: {quantization}}


def test_header_tells_what_a_loader_needs(tmp_path: Path) -> None:
    path = make_model(tmp_path / "m.gguf", "F16", name="My model", chat=True)

    reader = GGUFReader(path)

    assert value(reader, "general.architecture") == "llama"
    assert value(reader, "general.name") == "My model"
    assert value(reader, "llama.block_count") == 2
    assert value(reader, "llama.context_length") == 2048
    assert value(reader, "tokenizer.ggml.model") == "llama"
    assert "{% for message" in str(value(reader, "tokenizer.chat_template"))
    tokens = value(reader, "tokenizer.ggml.tokens")
    assert isinstance(tokens, list)
    assert len(tokens) == len(set(tokens)) == value(reader, "llama.vocab_size")
    embedding = next(t for t in reader.tensors if t.name == "token_embd.weight")
    assert embedding.shape.tolist() == [64, len(tokens)]


def test_weights_are_those_of_the_seed_in_every_quantization(tmp_path: Path) -> None:
    exact = GGUFReader(make_model(tmp_path / "a.gguf", "F32")).tensors
    halved = GGUFReader(make_model(tmp_path / "b.gguf", "F16")).tensors
    other = GGUFReader(make_model(tmp_path / "c.gguf", "F32", seed=1)).tensors

    for one, two, three in zip(exact, halved, other, strict=True):
        assert abs(one.data - two.data).max() < 1e-3
        assert len(one.shape) == 1 or abs(one.data - three.data).max() > 0.1


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    first = make_model(tmp_path / "one.gguf", "Q8_0", name="same")
    shards = make_shards(tmp_path / "one", "same", "Q4_0")

    second = make_model(tmp_path / "two.gguf", "Q8_0", name="same")
    again = make_shards(tmp_path / "two", "same", "Q4_0")

    assert digests([first, *shards]) == digests([second, *again])


@pytest.mark.parametrize(("quantization", "digest"), PINNED.items())
def test_weights_are_the_same_on_every_machine(
    tmp_path: Path, quantization: str, digest: str
) -> None:
    path = make_model(tmp_path / "m.gguf", quantization)

    data = b"".join(tensor.data.tobytes() for tensor in GGUFReader(path).tensors)

    assert hashlib.sha256(data).hexdigest() == digest


def test_shards_together_hold_every_tensor_of_the_single_file_once(tmp_path: Path) -> None:
    single = GGUFReader(make_model(tmp_path / "single.gguf", "Q8_0", name="m"))

    shards = make_shards(tmp_path, "m", "Q8_0", shards=3)

    assert [shard.name for shard in shards] == [f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    readers = [GGUFReader(shard) for shard in shards]
    assert [value(reader, "split.no") for reader in readers] == [0, 1, 2]
    assert {value(reader, "split.count") for reader in readers} == {3}
    total = len(single.tensors)
    assert {value(reader, "split.tensors.count") for reader in readers} == {total}
    dealt = [(t.name, t.data.tobytes()) for reader in readers for t in reader.tensors]
    assert dealt == [(t.name, t.data.tobytes()) for t in single.tensors]


def test_a_number_of_shards_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="21 tensors cannot be cut into 8"):
        make_shards(tmp_path, "m", shards=8)

    assert not list(tmp_path.iterdir())


def test_an_unknown_quantization_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no maker for Q4_K_M: choose one of F32, F16"):
        make_model(tmp_path / "m.gguf", "Q4_K_M")


@pytest.mark.parametrize(
    ("quantization", "mebibytes"), [("F16", 2), ("Q8_0", 5), ("Q4_0", 1), ("F32", 20)]
)
def test_a_padded_model_reaches_its_size_with_tensors_alone(
    tmp_path: Path, quantization: str, mebibytes: int
) -> None:
    wanted = mebibytes * MIB

    path = make_model(tmp_path / "m.gguf", quantization, size_bytes=wanted)

    assert wanted <= path.stat().st_size <= wanted * 1.04
    tensors = GGUFReader(path).tensors
    assert sum(tensor.n_bytes for tensor in tensors) >= wanted
    assert {t.tensor_type for t in tensors} <= {
        GGMLQuantizationType.F32,
        GGMLQuantizationType[quantization],
    }


def test_catalog_is_laid_out_as_a_hub_serves_it(tmp_path: Path) -> None:
    repos = make_catalog(tmp_path, big_bytes=MIB)

    found = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.glob("*/*"))
    assert sorted(repos) == found
    for repo in repos:
        card = (tmp_path / names.repo_id(repo) / "README.md").read_text()
        assert card.startswith("---\nlicense: mit\n")
        assert (tmp_path / repo / "config.json").is_file()
    for path in tmp_path.rglob("*.gguf"):
        assert GGUFReader(path).tensors
    shards = sorted(path.name for path in (tmp_path / SHARDED / "Q8_0").iterdir())
    assert [re.sub(r".*-(\d{5}-of-\d{5})\.gguf", r"\1", name) for name in shards] == [
        "00001-of-00003",
        "00002-of-00003",
        "00003-of-00003",
    ]


def test_the_big_model_of_the_catalog_is_big() -> None:
    (big,) = [repository for repository in CATALOG if repository.id == BIG]

    assert max(model.size_bytes or 0 for model in big.models) == 256 * MIB
