"""How much memory running a model takes, estimated from its header. It warns, it never forbids.

    required = weights + KV cache(context) + compute buffers + fixed overhead

* weights: the model's files as they are on disk; llama.cpp maps or copies them whole.
* KV cache: per token of context, for each layer, `kv heads × (key + value length) × 2 bytes` (f16);
  llama.cpp rounds the context up to 256 cells (`llama_kv_cache`, `llama_kv_cache_iswa`). Windowed
  layers and recurrent states cost the same whatever the context (see `GgufFacts`).
* compute buffers, for a batch of 512 tokens (llama.cpp's default `n_ubatch`), in f32: four rows of
  the embedding beside the logits, or beside three rows of the feed-forward layer (of all experts
  that one token uses), whichever is more; and the attention mask, `512 × context × 2 bytes`.
* overhead: 64 MiB for the program, tokenizer and graphs.

What the header does not tell is taken as a share of the weights: a quarter for the cache, a tenth
for the buffers. Without the 64 MiB, `python -m bench.memory` finds this within 0.1 % of the
buffers that llama.cpp itself says it allocates (2.3 % for a file of 0.14 MiB), with flash attention
(its default) on a processor.
"""

from router.domain.catalog import GgufFacts

DEFAULT_CONTEXT = 4096
_CELLS = 256
_BATCH = 512
_F32_BYTES = 4
_MASK_BYTES = 2
_EMBEDDING_ROWS = 4
_FEED_FORWARD_ROWS = 3
OVERHEAD_BYTES = 64 * 1024 * 1024
_MOST = 1 << 60  # a header can claim anything; databases and messages hold 63 bits


def required_memory_bytes(
    weights_bytes: int, facts: GgufFacts | None, context: int = DEFAULT_CONTEXT
) -> int:
    """Bytes that the model takes at `context` tokens (capped at what it was trained for)."""
    if facts is not None and facts.context_length:
        context = min(context, facts.context_length)
    cells = -(-context // _CELLS) * _CELLS
    total = (
        weights_bytes
        + _cache_bytes(weights_bytes, facts, cells)
        + _buffer_bytes(weights_bytes, facts, cells)
        + OVERHEAD_BYTES
    )
    return min(total, _MOST)


def _cache_bytes(weights_bytes: int, facts: GgufFacts | None, cells: int) -> int:
    if facts is None or facts.kv_bytes_per_token is None:
        return weights_bytes // 4
    return cells * facts.kv_bytes_per_token + (facts.kv_fixed_bytes or 0)


def _buffer_bytes(weights_bytes: int, facts: GgufFacts | None, cells: int) -> int:
    if facts is None or facts.vocabulary is None or facts.embedding_length is None:
        return weights_bytes // 10
    widest = max(facts.vocabulary, _FEED_FORWARD_ROWS * (facts.feed_forward_length or 0))
    row = (widest + _EMBEDDING_ROWS * facts.embedding_length) * _F32_BYTES
    return _BATCH * (row + cells * _MASK_BYTES)
