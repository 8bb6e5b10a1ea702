"""How much memory running a model takes."""

from router.domain.catalog import GgufFacts
from router.domain.memory import OVERHEAD_BYTES, required_memory_bytes

GIB = 1 << 30
LLAMA_8B = GgufFacts(
    "llama",
    context_length=131072,
    embedding_length=4096,
    vocabulary=128256,
    kv_bytes_per_token=131072,
    kv_fixed_bytes=0,
)


def test_the_cache_grows_with_the_context() -> None:
    small = required_memory_bytes(5 * GIB, LLAMA_8B, 4096)
    large = required_memory_bytes(5 * GIB, LLAMA_8B, 8192)

    assert large - small == 4096 * (131072 + 512 * 2)
    assert 5.5 * GIB < small < 6.2 * GIB


def test_the_context_is_rounded_to_cells_and_capped_by_training() -> None:
    assert required_memory_bytes(GIB, LLAMA_8B, 1) == required_memory_bytes(GIB, LLAMA_8B, 256)
    assert required_memory_bytes(GIB, LLAMA_8B, 1 << 30) == required_memory_bytes(
        GIB, LLAMA_8B, 131072
    )


def test_a_fixed_part_counts_once() -> None:
    windowed = GgufFacts(
        "gemma3", embedding_length=1, vocabulary=1, kv_bytes_per_token=0, kv_fixed_bytes=GIB
    )

    small = required_memory_bytes(0, windowed, 4096)
    large = required_memory_bytes(0, windowed, 65536)

    assert large - small == (65536 - 4096) * 512 * 2  # the attention mask of a batch alone
    assert small > GIB


def test_the_buffers_are_those_that_llama_cpp_allocates() -> None:
    # Figures of `python -m bench.memory`, MiB: its F16 model at 2,048 tokens.
    wide = GgufFacts(
        "llama",
        embedding_length=512,
        feed_forward_length=4736,
        vocabulary=400,
        kv_bytes_per_token=8192,
    )

    needed = required_memory_bytes(0, wide, 2048) - OVERHEAD_BYTES

    assert abs(needed / 2**20 - (16.0 + 33.76)) < 0.1


def test_what_a_header_claims_stays_within_what_can_be_stored() -> None:
    absurd = GgufFacts(
        "x", embedding_length=1 << 50, vocabulary=1 << 50, kv_bytes_per_token=1 << 60
    )

    assert required_memory_bytes(1 << 62, absurd, 1 << 50) < 1 << 63


def test_without_facts_it_is_a_share_of_the_weights() -> None:
    assert 1.3 * GIB < required_memory_bytes(GIB, None) < 1.5 * GIB
    assert required_memory_bytes(GIB, GgufFacts("unknown")) == required_memory_bytes(GIB, None)
