"""Makes small GGUF models that real llama.cpp loads and decodes.

The models have the llama architecture, a SentencePiece vocabulary and random weights: they speak
nonsense, but every loader, parser and downloader sees what it would see of a large one. The same
arguments always give the same bytes, on every machine.

Sources: the GGUF specification (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) for
keys, tensor names and shards.
"""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import quant_shape_to_byte_shape, quantize

FILE_TYPES = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
    "Q5_1": LlamaFileType.MOSTLY_Q5_1,
    "Q5_0": LlamaFileType.MOSTLY_Q5_0,
    "Q4_1": LlamaFileType.MOSTLY_Q4_1,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
}
QUANTIZATIONS = tuple(FILE_TYPES)
MIB = 1 << 20

_CONTEXT_TOKENS = 2048
_NORM_EPSILON = 1e-5
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<s>' + message['role'] + '\n' + message['content'] }}"
    "{{ '</s>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)
_WORDS = "the and to of is in it you that was for on are as with his they at be this have from"

Weights = npt.NDArray[np.float32]
Piece = tuple[str, float, TokenType]  # text, score, kind


def make_model(
    path: Path,
    quantization: str = "Q8_0",
    *,
    size_bytes: int | None = None,
    seed: int = 0,
    name: str | None = None,
    chat: bool = False,
) -> Path:
    """Writes one model of about 0.1 to 0.8 MB and returns `path`; missing folders are made.

    With `size_bytes` the layers become wider and more until the file has at least that size, and
    about 1 % more: every byte is a tensor that a loader reads, nothing is mere filling.
    Models that differ only in `quantization` hold the same weights. `chat` adds a chat template.
    Raises `ValueError` for a quantization that is not in `QUANTIZATIONS`.
    """
    _write(path, _Recipe(quantization, size_bytes, seed, name or path.stem, chat), shards=1)
    return path


def make_shards(
    folder: Path,
    stem: str,
    quantization: str = "Q8_0",
    *,
    shards: int = 3,
    size_bytes: int | None = None,
    seed: int = 0,
) -> list[Path]:
    """Writes one model as `stem-00001-of-0000N.gguf` …, as llama.cpp splits it; returns the files.

    The first file carries the metadata, all carry the `split.*` keys. `size_bytes` counts all
    shards together. Raises `ValueError` when the tensors cannot be dealt to that many files.
    """
    recipe = _Recipe(quantization, size_bytes, seed, stem, chat=False)
    return _write(folder / f"{stem}.gguf", recipe, shards)


@dataclass(frozen=True, slots=True)
class _Recipe:
    """Everything that decides the bytes of a model."""

    quantization: str
    size_bytes: int | None
    seed: int
    name: str
    chat: bool


@dataclass(frozen=True, slots=True)
class _Shape:
    """The dimensions of a llama model; all are multiples of a quantization block (32)."""

    embedding: int = 64
    heads: int = 4
    layers: int = 2
    feed_forward: int = 192

    def tensors(self, vocabulary: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and (rows, columns) in the order of the file; vectors are never quantized."""
        square = (self.embedding, self.embedding)
        yield "token_embd.weight", (vocabulary, self.embedding)
        yield "output_norm.weight", (self.embedding,)
        yield "output.weight", (vocabulary, self.embedding)
        for layer in range(self.layers):
            block = f"blk.{layer}"
            yield f"{block}.attn_norm.weight", (self.embedding,)
            yield f"{block}.attn_q.weight", square
            yield f"{block}.attn_k.weight", square
            yield f"{block}.attn_v.weight", square
            yield f"{block}.attn_output.weight", square
            yield f"{block}.ffn_norm.weight", (self.embedding,)
            yield f"{block}.ffn_gate.weight", (self.feed_forward, self.embedding)
            yield f"{block}.ffn_up.weight", (self.feed_forward, self.embedding)
            yield f"{block}.ffn_down.weight", (self.embedding, self.feed_forward)


def _shape_of(recipe: _Recipe, vocabulary: int) -> _Shape:
    """The tiny shape, or the smallest one whose quantized tensors reach `size_bytes`."""
    if recipe.size_bytes is None:
        return _Shape()
    block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[recipe.quantization]]
    wanted = recipe.size_bytes * block / block_bytes  # weights
    embedding = 64 if recipe.size_bytes <= 16 * MIB else 512
    layers = max(2, math.ceil(recipe.size_bytes / (16 * MIB)))
    fixed = 2 * vocabulary * embedding + layers * 4 * embedding**2
    rows = (wanted - fixed) / (layers * 3 * embedding)
    feed_forward = max(32, 32 * math.ceil(rows / 32))
    return _Shape(embedding, embedding // 16, layers, feed_forward)


def _write(path: Path, recipe: _Recipe, shards: int) -> list[Path]:
    if recipe.quantization not in FILE_TYPES:
        known = ", ".join(QUANTIZATIONS)
        raise ValueError(f"no maker for {recipe.quantization}: choose one of {known}")
    pieces = _vocabulary()
    shape = _shape_of(recipe, len(pieces))
    tensors = list(shape.tensors(len(pieces)))
    per_shard = math.ceil(len(tensors) / shards)
    if math.ceil(len(tensors) / per_shard) != shards:
        raise ValueError(f"{len(tensors)} tensors cannot be cut into {shards} equal shards")

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, "llama", split_max_tensors=per_shard if shards > 1 else 0)
    _describe(writer, recipe, shape, pieces)
    kinds = [_kind(recipe.quantization, dimensions) for _, dimensions in tensors]
    for (tensor, dimensions), kind in zip(tensors, kinds, strict=True):
        stored = quant_shape_to_byte_shape(dimensions, kind)
        writer.add_tensor_info(
            tensor, stored, np.dtype(np.uint8), math.prod(stored), raw_dtype=kind
        )
    files = writer.format_shard_names(path)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    # One tensor at a time, so that a large model needs little memory.
    for number, ((_, dimensions), kind) in enumerate(zip(tensors, kinds, strict=True)):
        writer.write_tensor_data(quantize(_weights(dimensions, recipe.seed, number), kind))
    writer.close()
    return files


def _kind(quantization: str, dimensions: tuple[int, ...]) -> GGMLQuantizationType:
    return GGMLQuantizationType.F32 if len(dimensions) == 1 else GGMLQuantizationType[quantization]


def _weights(dimensions: tuple[int, ...], seed: int, number: int) -> Weights:
    """Ones for a norm, else uniform values that keep the activations near one.

    Drawn from the raw output of PCG64, which NumPy promises never to change; its distributions
    have no such promise.
    """
    count = math.prod(dimensions)
    if len(dimensions) == 1:
        return np.ones(count, dtype=np.float32)
    raw = np.random.PCG64([seed, number]).random_raw((count + 3) // 4)
    signed = raw.astype("<u8", copy=False).view("<i2")[:count]
    reach = np.float32(math.sqrt(3 / dimensions[-1]) / 32768)
    return (signed.astype(np.float32) * reach).reshape(dimensions)


def _describe(writer: GGUFWriter, recipe: _Recipe, shape: _Shape, pieces: list[Piece]) -> None:
    writer.add_type("model")
    writer.add_name(recipe.name)
    writer.add_description("Random weights for trying llm-router; it speaks nonsense.")
    writer.add_license("mit")
    writer.add_file_type(FILE_TYPES[recipe.quantization])
    writer.add_quantization_version(2)
    writer.add_context_length(_CONTEXT_TOKENS)
    writer.add_embedding_length(shape.embedding)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.embedding // shape.heads)
    writer.add_layer_norm_rms_eps(_NORM_EPSILON)
    writer.add_vocab_size(len(pieces))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([piece for piece, _, _ in pieces])
    writer.add_token_scores([score for _, score, _ in pieces])
    writer.add_token_types([kind for _, _, kind in pieces])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    if recipe.chat:
        writer.add_chat_template(_CHAT_TEMPLATE)


def _vocabulary() -> list[Piece]:
    """The tokenizer in the order of ids: specials, all bytes, characters, beginnings of words.

    Every beginning of a word is a piece, because SentencePiece merges two neighbours at a time.
    """
    specials = [
        ("<unk>", 0.0, TokenType.UNKNOWN),
        ("<s>", 0.0, TokenType.CONTROL),
        ("</s>", 0.0, TokenType.CONTROL),
    ]
    octets = [(f"<0x{value:02X}>", 0.0, TokenType.BYTE) for value in range(256)]
    characters = ["▁", *(chr(code) for code in range(33, 127))]
    starts = (f"▁{word[:end]}" for word in _WORDS.split() for end in range(1, len(word) + 1))
    parts = dict.fromkeys([*characters, *starts])
    normal = [(part, -float(rank), TokenType.NORMAL) for rank, part in enumerate(parts)]
    return [*specials, *octets, *normal]


def make_weights(folder: Path, *, seed: int = 0) -> list[Path]:
    """Writes the tiny model as trained models are published: safetensors, `config.json` and
    a SentencePiece `tokenizer.model`; returns the files. A converter makes GGUF of it.

    Sources: https://huggingface.co/docs/safetensors (format), `sentencepiece_model.proto`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pieces, shape = _vocabulary(), _Shape()
    files = {
        "config.json": _config(shape, len(pieces)),
        "model.safetensors": _safetensors(shape, len(pieces), seed),
        "tokenizer.model": _sentencepiece(pieces),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


def _config(shape: _Shape, vocabulary: int) -> bytes:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": shape.embedding,
        "intermediate_size": shape.feed_forward,
        "max_position_embeddings": _CONTEXT_TOKENS,
        "model_type": "llama",
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.heads,
        "rms_norm_eps": _NORM_EPSILON,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "vocab_size": vocabulary,
    }
    return json.dumps(config, indent=2).encode() + b"\n"


_TRANSFORMERS_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _safetensors(shape: _Shape, vocabulary: int, seed: int) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = bytearray()
    for number, (name, dimensions) in enumerate(shape.tensors(vocabulary)):
        *block, part, _ = name.split(".")
        prefix = f"model.layers.{block[1]}." if block else ""
        content = _weights(dimensions, seed, number).astype("<f2").tobytes()
        header[f"{prefix}{_TRANSFORMERS_NAMES[part]}.weight"] = {
            "dtype": "F16",
            "shape": dimensions,
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(data)


# TrainerSpec: model_type (field 3) = BPE, byte_fallback (field 35) = true.
_BPE_WITH_BYTES = bytes([3 << 3, 2, 0x98, 0x02, 1])


def _sentencepiece(pieces: list[Piece]) -> bytes:
    """A `ModelProto` with the pieces (field 1) and a `TrainerSpec` (field 2)."""

    def field(number: int, content: bytes) -> bytes:
        assert len(content) < 128, "one byte of length is enough for these pieces"
        return bytes([number << 3 | 2, len(content)]) + content

    model = bytearray()
    for text, score, kind in pieces:
        entry = field(1, text.encode()) + struct.pack("<Bf", 2 << 3 | 5, score)
        model += field(1, entry + bytes([3 << 3, kind]))
    return bytes(model + field(2, _BPE_WITH_BYTES))
