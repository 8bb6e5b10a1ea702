"""What a GGUF header tells, and what a hostile one costs."""

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from deploy.demo.models import make_model, make_shards
from router.domain.catalog import GgufFacts
from router.hub.gguf_header import UnreadableHeader, read_facts
from tests.hub.gguf_bytes import header, mutated, reader, text

LLAMA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.name": "Tiny",
    "general.license": "apache-2.0",
    "llama.block_count": 32,
    "llama.context_length": 131072,
    "llama.embedding_length": 4096,
    "llama.attention.head_count": 32,
    "llama.attention.head_count_kv": 8,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": ["a", "bc", ""],
    "tokenizer.ggml.scores": [1, 2, 3],
    "tokenizer.chat_template": "{{ messages }}",
}


def facts(values: dict[str, Any], **more: Any) -> GgufFacts:
    content = header(values, **more)
    return read_facts(reader(content), len(content))


def test_a_llama_header_tells_all() -> None:
    found = facts(LLAMA, tensors={"token_embd.weight": (4096, 3), "output_norm.weight": (4096,)})

    assert found == GgufFacts(
        architecture="llama",
        name="Tiny",
        parameters=4 * 4096,
        context_length=131072,
        layers=32,
        heads=32,
        kv_heads=8,
        embedding_length=4096,
        key_length=128,
        value_length=128,
        vocabulary=3,
        tokenizer="gpt2",
        chat_template="{{ messages }}",
        license="apache-2.0",
        kv_bytes_per_token=32 * 8 * (128 + 128) * 2,
        kv_fixed_bytes=0,
    )


def test_the_files_of_a_real_writer_are_read(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m-Q8_0.gguf", "Q8_0", chat=True)
    content = model.read_bytes()

    found = read_facts(reader(content), len(content))

    assert (found.architecture, found.tokenizer, found.vocabulary) == ("llama", "llama", 400)
    assert found.chat_template is not None
    assert found.parameters == 158016


def test_a_shard_does_not_pretend_to_know_all_parameters(tmp_path: Path) -> None:
    first = make_shards(tmp_path, "m-Q8_0", "Q8_0", shards=3)[0]
    content = first.read_bytes()

    found = read_facts(reader(content), len(content))

    assert found.layers is not None
    assert found.parameters is None


def test_layers_may_differ_in_their_key_value_heads() -> None:
    found = facts(LLAMA | {"llama.block_count": 4, "llama.attention.head_count_kv": [8, 0, 4, 0]})

    assert found.kv_heads == 8
    assert found.kv_bytes_per_token == (8 + 4) * 256 * 2


def test_heads_that_do_not_fit_the_layers_tell_nothing() -> None:
    found = facts(LLAMA | {"llama.attention.head_count_kv": [8, 0, 4]})

    assert found.kv_bytes_per_token is None


def test_windowed_layers_cost_the_same_whatever_the_context() -> None:
    found = facts(
        {
            "general.architecture": "gemma3",
            "gemma3.block_count": 12,
            "gemma3.embedding_length": 2560,
            "gemma3.attention.head_count": 8,
            "gemma3.attention.head_count_kv": 4,
            "gemma3.attention.key_length": 256,
            "gemma3.attention.value_length": 256,
            "gemma3.attention.sliding_window": 1024,
        }
    )

    layer = 4 * 512 * 2
    assert found.kv_bytes_per_token == 2 * layer
    assert found.kv_fixed_bytes == 10 * layer * (1024 + 512)
    assert found.sliding_window == 1024


@pytest.mark.parametrize("pattern", [[True, False, True, False], 2])
def test_the_header_itself_may_say_which_layers_have_a_window(pattern: Any) -> None:
    found = facts(
        LLAMA
        | {
            "llama.block_count": 4,
            "llama.attention.sliding_window": 100,
            "llama.attention.sliding_window_pattern": pattern,
        }
    )

    layer = 8 * 256 * 2
    assert found.kv_bytes_per_token == 2 * layer
    assert found.kv_fixed_bytes == 2 * layer * 768


def test_latent_attention_keeps_compressed_keys_only() -> None:
    found = facts(
        {
            "general.architecture": "deepseek2",
            "deepseek2.block_count": 61,
            "deepseek2.embedding_length": 7168,
            "deepseek2.attention.head_count": 128,
            "deepseek2.attention.head_count_kv": 1,
            "deepseek2.attention.key_length": 576,
            "deepseek2.attention.value_length": 512,
            "deepseek2.attention.key_length_mla": 192,
            "deepseek2.attention.value_length_mla": 128,
        }
    )

    assert found.kv_bytes_per_token == 61 * 576 * 2


def test_a_mixture_of_experts_is_told() -> None:
    found = facts(LLAMA | {"llama.expert_count": 128, "llama.expert_used_count": 8})

    assert (found.experts, found.experts_used) == (128, 8)


def test_a_recurrent_model_has_a_state_instead_of_a_cache() -> None:
    found = facts(
        {
            "general.architecture": "mamba",
            "mamba.block_count": 2,
            "mamba.embedding_length": 768,
            "mamba.ssm.conv_kernel": 4,
            "mamba.ssm.inner_size": 1536,
            "mamba.ssm.state_size": 16,
            "mamba.attention.head_count": 0,
        }
    )

    assert found.kv_bytes_per_token == 0
    assert found.kv_fixed_bytes == 2 * (3 * 1536 + 1536 * 16) * 4


def test_large_arrays_are_stepped_over_without_being_read() -> None:
    values: dict[str, Any] = {
        "general.architecture": "llama",
        "tokenizer.ggml.token_type": list(range(500_000)),
        "tokenizer.ggml.tokens": [f"token {n}" for n in range(200_000)],
        "tokenizer.chat_template": "at the end",
    }
    content = header(values)
    read = 0

    def counting(offset: int, length: int) -> bytes:
        nonlocal read
        read += length
        return content[offset : offset + length]

    found = read_facts(counting, len(content))

    assert (found.vocabulary, found.chat_template) == (200_000, "at the end")
    assert read < len(content) - 1_000_000


def test_values_of_the_wrong_type_are_as_good_as_none() -> None:
    found = facts(
        {
            "general.architecture": "llama",
            "general.name": 5,
            "llama.block_count": "many",
            "llama.context_length": True,
            "llama.embedding_length": 2**63,
        }
    )

    assert found == GgufFacts("llama", kv_bytes_per_token=None)


# --- hostile headers ---


def start(tensors: int, entries: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, entries)


STRINGS = struct.pack("<I", 9) + struct.pack("<I", 8)
HOSTILE: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "another format": lambda: b"PK\x03\x04" + bytes(100),
    "an unknown version": lambda: header(LLAMA, version=4),
    "no architecture": lambda: header({"general.name": "x"}),
    "cut in the middle": lambda: header(LLAMA)[:-20],
    "endless entries": lambda: start(0, 2**63) + bytes(1 << 20),
    "endless tensors": lambda: start(2**40, 0) + bytes(1 << 20),
    "an endless key": lambda: start(0, 1) + struct.pack("<Q", 2**62) + bytes(1 << 20),
    "an endless text": lambda: (
        start(0, 1) + text("k") + struct.pack("<IQ", 8, 2**40) + bytes(1 << 20)
    ),
    "endless strings": lambda: start(0, 1) + text("k") + STRINGS + struct.pack("<Q", 2**60),
    "millions of empty strings": lambda: (
        start(0, 1) + text("k") + STRINGS + struct.pack("<Q", 1_400_000) + bytes(11_200_000)
    ),
    "many arrays of empty strings": lambda: (
        start(0, 200) + (text("k") + STRINGS + struct.pack("<Q", 50_000) + bytes(400_000)) * 60
    ),
    "an endless array of numbers": lambda: (
        start(0, 1) + text("k") + struct.pack("<IIQ", 9, 10, 2**61) + bytes(1 << 20)
    ),
    "a last array that ends beyond the file": lambda: (
        start(0, 2)
        + header({"general.architecture": "llama"})[len(start(0, 1)) :]
        + text("k")
        + struct.pack("<IIQ", 9, 10, 1 << 20)
    ),
    "arrays in arrays": lambda: start(0, 1) + text("k") + struct.pack("<IIQ", 9, 9, 5) * 1000,
    "an unknown type": lambda: start(0, 1) + text("k") + struct.pack("<I", 99) + bytes(100),
    "a tensor of endless dimensions": lambda: (
        start(1, 0) + text("t") + struct.pack("<I", 2**31) + bytes(1 << 20)
    ),
    "as many texts as fit": lambda: (
        start(0, 4096)
        + b"".join(text(f"k{n}") + struct.pack("<I", 8) + text("x" * 100_000) for n in range(100))
    ),
    "as many tensors as fit": lambda: (
        start(65_536, 0) + (text("t") + struct.pack("<IQQIQ", 2, 2**63, 2**63, 0, 0)) * 65_536
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_header_is_refused(kind: str) -> None:
    content = HOSTILE[kind]()

    with pytest.raises(UnreadableHeader):
        read_facts(reader(content), len(content))


@pytest.mark.parametrize(
    "kind", ["an endless text", "an endless array of numbers", "as many texts as fit"]
)
def test_a_hostile_header_takes_little_memory(kind: str) -> None:
    content = HOSTILE[kind]()
    tracemalloc.start()

    with pytest.raises(UnreadableHeader):
        read_facts(reader(content), len(content))

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 1024 * 1024


def test_a_source_that_gives_too_little_is_refused() -> None:
    with pytest.raises(UnreadableHeader):
        read_facts(lambda offset, length: b"GGUF", 1 << 30)


def test_skips_over_a_huge_file_are_bounded_in_reads() -> None:
    reads = 0
    entry = text("k") + struct.pack("<IIQ", 9, 10, 1 << 20)

    def endless(offset: int, length: int) -> bytes:
        nonlocal reads
        reads += 1
        return start(0, 4096) + entry + bytes(length) if offset == 0 else (entry * length)[:length]

    with pytest.raises(UnreadableHeader):
        read_facts(lambda o, n: endless(o, min(n, 4096))[:n].ljust(n, b"\0"), 1 << 50)
    assert reads < 50


def fuzz(seeds: range) -> int:
    """Reads that many broken headers; returns how many could be read all the same."""
    window: dict[str, Any] = {
        "llama.attention.sliding_window": 64,
        "llama.attention.sliding_window_pattern": [True, False] * 16,
        "llama.attention.head_count_kv": [8] * 32,
        "llama.ssm.inner_size": 16,
        "llama.ssm.state_size": 16,
    }
    contents = [
        header(LLAMA, {"a.weight": (64, 64), "b.weight": (64,)}),
        header(LLAMA | window, {"a.weight": (64, 64)}),
    ]
    readable = 0
    for seed in seeds:
        content = mutated(contents[seed % 2], Random(seed))
        try:
            read_facts(reader(content), len(content))
        except UnreadableHeader:
            continue
        readable += 1
    return readable


def test_twenty_thousand_broken_headers_are_read_or_refused() -> None:
    readable = fuzz(range(20_000))

    assert 0 < readable < 20_000
