"""How much memory running a model takes, estimated from its header. It warns, it never forbids.

    required = weights + KV cache(context) + compute buffers + fixed overhead

* weights: the model's files as they are on disk; llama.cpp maps or copies them whole.
* KV cache: per token of context, for each layer, `kv heads × (key + value length) × 2 bytes` (f16);
  llama.cpp rounds the context up to 256 cells (`llama_kv_cache`, `llama_kv_cache_iswa`). Windowed
  layers and recurrent states cost the same whatever the context (see `GgufFacts`).
* compute buffers: the largest is the batch's logits, `512 tokens × vocabulary × 4 bytes`
  (llama.cpp's default `n_ubatch`), beside some activations, `512 × embedding × 16 bytes`.
* overhead: 64 MiB for the program, tokenizer and graphs.

What the header does not tell is taken as a share of the weights: a quarter for the cache, a tenth
for the buffers.
"""

from router.domain.catalog import GgufFacts

DEFAULT_CONTEXT = 4096
_CELLS = 256
_BATCH = 512
_LOGIT_BYTES = 4
_ACTIVATION_BYTES = 16
_OVERHEAD = 64 * 1024 * 1024


def required_memory_bytes(
    weights_bytes: int, facts: GgufFacts | None, context: int = DEFAULT_CONTEXT
) -> int:
    """Bytes that the model takes at `context` tokens (capped at what it was trained for)."""
    return (
        weights_bytes + _cache_bytes(weights_bytes, facts, context) + _margin(weights_bytes, facts)
    )


def _cache_bytes(weights_bytes: int, facts: GgufFacts | None, context: int) -> int:
    if facts is None or facts.kv_bytes_per_token is None:
        return weights_bytes // 4
    if facts.context_length:
        context = min(context, facts.context_length)
    cells = -(-context // _CELLS) * _CELLS
    return cells * facts.kv_bytes_per_token + (facts.kv_fixed_bytes or 0)


def _margin(weights_bytes: int, facts: GgufFacts | None) -> int:
    if facts is None or facts.vocabulary is None or facts.embedding_length is None:
        return weights_bytes // 10 + _OVERHEAD
    row = facts.vocabulary * _LOGIT_BYTES + facts.embedding_length * _ACTIVATION_BYTES
    return _BATCH * row + _OVERHEAD
