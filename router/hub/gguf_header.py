"""Reads what a GGUF header tells, without the file: a bounded parser over ranged reads.

The format is the GGUF specification's (`docs/gguf.md` of the ggml repository), versions 2 and 3,
little-endian. The header comes from outside and may lie about anything: every count, length,
nesting and total is bounded, nothing is believed before the bytes are there, arrays are walked
and not kept, so a hostile header costs little time and a few MiB at most.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from router.domain.catalog import GgufFacts

Value = int | float | bool | str | tuple[int, ...]

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?"} | {
    10: "<Q",
    11: "<q",
    12: "<d",
}
_SCALARS = {code: struct.Struct(form) for code, form in _FORMATS.items()}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
# Cells that a windowed layer keeps beyond its window: one batch (llama.cpp's default n_ubatch).
_BATCH_CELLS = 512
_CELLS = 256
_F16_BYTES, _F32_BYTES = 2, 4
# Where llama.cpp fixes in code which layers have a window (`set_swa_pattern`): one layer of so
# many attends to everything. Used when the header names a window but no pattern.
_WINDOW_PERIODS = {
    "afmoe": 4,
    "cohere2": 4,
    "exaone4": 4,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "llama4": 4,
    "olmo2": 4,
    "plamo3": 8,
    "smallthinker": 4,
}


class UnreadableHeader(ValueError):
    """The bytes are not a GGUF header that we accept; the message says why."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a header may cost. Real ones stay far below (measured: 16 MiB with 260,000 tokens)."""

    read_bytes: int = 48 * 1024 * 1024
    reads: int = 24
    entries: int = 4096
    tensors: int = 65_536
    key_bytes: int = 512
    text_bytes: int = 1024 * 1024
    kept_texts_bytes: int = 4 * 1024 * 1024
    array_texts: int = 1_500_000
    kept_numbers: int = 4096


DEFAULT_LIMITS = Limits()
_FIRST_READ = 256 * 1024
_LARGEST_READ = 8 * 1024 * 1024


class _Window:
    """A part of the file in memory that moves forward only; skipping reads nothing."""

    def __init__(self, read: Callable[[int, int], bytes], size_bytes: int, limits: Limits) -> None:
        self._read = read
        self._size = size_bytes
        self._reads_left = limits.reads
        self._bytes_left = limits.read_bytes
        self._next_read = _FIRST_READ
        self._start = 0
        self._buffer = b""
        self._at = 0

    def take(self, length: int) -> bytes:
        """The next bytes, exactly so many."""
        if self._at + length > len(self._buffer):
            self._fetch(length)
        chunk = self._buffer[self._at : self._at + length]
        self._at += length
        return chunk

    def number(self, form: struct.Struct) -> int | float | bool:
        """The next scalar."""
        if self._at + form.size > len(self._buffer):
            self._fetch(form.size)
        value: int | float | bool = form.unpack_from(self._buffer, self._at)[0]
        self._at += form.size
        return value

    def count(self, form: struct.Struct = _U64) -> int:
        """The next scalar as a count."""
        return int(self.number(form))

    def skip(self, length: int) -> None:
        """Steps over bytes without reading those that are not there yet."""
        if self._start + self._at + length > self._size:
            raise UnreadableHeader("the header goes beyond the file's end")
        self._at += length

    def skip_texts(self, count: int) -> None:
        """Steps over so many strings."""
        unpack, size = _U64.unpack_from, _U64.size
        while count:
            buffer, at, end = self._buffer, self._at, len(self._buffer) - size
            while count and at <= end:
                at += size + unpack(buffer, at)[0]
                count -= 1
            self.skip(at - self._at)
            if count:
                self._fetch(size)

    def _fetch(self, length: int) -> None:
        """Reads on so that `length` bytes are there; drops what lies behind."""
        begin = self._start + self._at
        if begin + length > self._size:
            raise UnreadableHeader("the header goes beyond the file's end")
        kept = self._buffer[self._at :]
        wanted = min(max(length - len(kept), self._next_read), self._size - begin - len(kept))
        if self._reads_left <= 0 or wanted > self._bytes_left:
            raise UnreadableHeader("the header is larger than any real one")
        self._reads_left -= 1
        self._bytes_left -= wanted
        self._next_read = min(self._next_read * 2, _LARGEST_READ)
        chunk = self._read(begin + len(kept), wanted)
        if len(chunk) != wanted:
            raise UnreadableHeader("the file is shorter than it should be")
        self._buffer = kept + chunk if kept else chunk
        self._start, self._at = begin, 0


class _Parser:
    def __init__(self, window: _Window, limits: Limits) -> None:
        self._window = window
        self._limits = limits
        self._array_texts_left = limits.array_texts
        self._kept_left = limits.kept_texts_bytes
        self.array_lengths: dict[str, int] = {}

    def header(self) -> tuple[dict[str, Value], int]:
        """All values that are kept, and the number of weights in this file."""
        window = self._window
        if window.take(4) != _MAGIC:
            raise UnreadableHeader("the file does not begin as a GGUF file does")
        version = window.count(_U32)
        if version not in (2, 3):
            raise UnreadableHeader(f"GGUF version {version} is not known")
        tensors, entries = window.count(), window.count()
        if tensors > self._limits.tensors or entries > self._limits.entries:
            raise UnreadableHeader("the header promises too many entries")
        values: dict[str, Value] = {}
        for _ in range(entries):
            key = self._text(self._limits.key_bytes)
            value = self._value(key, window.count(_U32))
            if value is not None:
                values[key] = value
        return values, sum(self._tensor_weights() for _ in range(tensors))

    def _text(self, longest: int) -> str:
        length = self._window.count()
        if length > longest:
            raise UnreadableHeader("a text in the header is too long")
        return self._window.take(length).decode(errors="replace")

    def _value(self, key: str, kind: int) -> Value | None:
        if kind == _STRING:
            text = self._text(self._limits.text_bytes)
            self._kept_left -= len(text)
            if self._kept_left < 0:
                raise UnreadableHeader("the texts of the header are too long together")
            return text
        if kind == _ARRAY:
            return self._array(key)
        if kind not in _SCALARS:
            raise UnreadableHeader(f"a value of the header has the unknown type {kind}")
        return self._window.number(_SCALARS[kind])

    def _array(self, key: str) -> tuple[int, ...] | None:
        kind, length = self._window.count(_U32), self._window.count()
        self.array_lengths[key] = length
        if kind == _STRING:
            self._array_texts_left -= length
            if self._array_texts_left < 0:
                raise UnreadableHeader("an array of the header is too long")
            self._window.skip_texts(length)
            return None
        if kind not in _SCALARS:
            raise UnreadableHeader(f"an array of the header has the unknown type {kind}")
        form = _SCALARS[kind]
        if length > self._limits.kept_numbers:
            self._window.skip(length * form.size)
            return None
        numbers = self._window.take(length * form.size)
        if kind in (6, 12):
            return None
        return tuple(int(number) for (number,) in form.iter_unpack(numbers))

    def _tensor_weights(self) -> int:
        self._window.skip(self._bounded(self._window.count(), self._limits.key_bytes))
        dimensions = self._bounded(self._window.count(_U32), 8)
        shape = [self._window.count() for _ in range(dimensions)]
        self._window.take(_U32.size + _U64.size)
        return prod(shape)

    def _bounded(self, number: int, largest: int) -> int:
        if number > largest:
            raise UnreadableHeader("a tensor of the header is not described as one")
        return number


def read_facts(
    read: Callable[[int, int], bytes], size_bytes: int, limits: Limits = DEFAULT_LIMITS
) -> GgufFacts:
    """What the header tells. `read(offset, length)` returns exactly those bytes of the file.

    Raises `UnreadableHeader`; what `read` raises passes through.
    """
    parser = _Parser(_Window(read, size_bytes, limits), limits)
    values, weights = parser.header()
    fields = _Fields(values)
    architecture = fields.text("general.architecture")
    if not architecture:
        raise UnreadableHeader("the header names no architecture")
    fields.prefix = architecture
    split = fields.number("split.count") or 0
    vocabulary = parser.array_lengths.get("tokenizer.ggml.tokens")
    attention = _Attention.of(fields)
    per_token, fixed = attention.cache_bytes(fields)
    return GgufFacts(
        architecture=architecture,
        name=fields.text("general.name"),
        # A first shard describes its own tensors only.
        parameters=fields.number("general.parameter_count")
        or (weights if 0 < weights < 1 << 50 and split <= 1 else None),
        context_length=fields.of_model("context_length"),
        layers=attention.layers,
        heads=attention.heads,
        kv_heads=max(attention.kv_heads, default=None),
        embedding_length=fields.of_model("embedding_length"),
        feed_forward_length=_feed_forward_length(fields),
        key_length=attention.key_length,
        value_length=attention.value_length,
        sliding_window=fields.of_model("attention.sliding_window"),
        experts=fields.of_model("expert_count"),
        experts_used=fields.of_model("expert_used_count"),
        vocabulary=vocabulary or fields.of_model("vocab_size"),
        tokenizer=fields.text("tokenizer.ggml.model"),
        chat_template=fields.text("tokenizer.chat_template"),
        license=fields.text("general.license"),
        kv_bytes_per_token=per_token,
        kv_fixed_bytes=fixed,
    )


def _feed_forward_length(fields: "_Fields") -> int | None:
    dense = fields.of_model("feed_forward_length") or 0
    expert = fields.of_model("expert_feed_forward_length") or 0
    return max(dense, expert * (fields.of_model("expert_used_count") or 1)) or None


class _Fields:
    """Typed reading: a value of another type, or out of all reason, is as good as none."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = values
        self.prefix = ""

    def text(self, key: str) -> str | None:
        value = self._values.get(key)
        return value if isinstance(value, str) and value else None

    def number(self, key: str) -> int | None:
        value = self._values.get(key)
        if isinstance(value, bool) or not isinstance(value, int):
            return None
        return value if 0 < value < 1 << 50 else None

    def of_model(self, key: str) -> int | None:
        """A number of this architecture; of a value per layer, the largest."""
        several = self.per_layer(key)
        return max(several) or None if several else self.number(f"{self.prefix}.{key}")

    def per_layer(self, key: str) -> tuple[int, ...]:
        """The values of an array; () when it is none."""
        value = self._values.get(f"{self.prefix}.{key}")
        usable = isinstance(value, tuple) and all(0 <= number < 1 << 32 for number in value)
        return value if usable and isinstance(value, tuple) else ()


@dataclass(frozen=True, slots=True)
class _Attention:
    """The attention of every layer; `kv_heads` has one value per layer, 0 where it has none."""

    layers: int | None
    heads: int | None
    kv_heads: tuple[int, ...]
    key_length: int | None
    value_length: int | None

    @classmethod
    def of(cls, fields: _Fields) -> "_Attention":
        layers = fields.of_model("block_count")
        heads = fields.of_model("attention.head_count")
        embedding = fields.of_model("embedding_length")
        default = embedding // heads if embedding and heads else None
        kv_heads: tuple[int, ...] = ()
        if layers and layers <= DEFAULT_LIMITS.kept_numbers:
            kv_heads = fields.per_layer("attention.head_count_kv")
            if not kv_heads:
                single = fields.of_model("attention.head_count_kv") or heads
                kv_heads = (single,) * layers if single else ()
            # Hybrids that name no zeros: only every n-th layer has attention (Qwen3-Next).
            every = fields.of_model("full_attention_interval")
            if every:
                kv_heads = tuple(
                    count if (layer + 1) % every == 0 else 0 for layer, count in enumerate(kv_heads)
                )
        return cls(
            layers,
            heads,
            kv_heads,
            fields.of_model("attention.key_length") or default,
            fields.of_model("attention.value_length") or default,
        )

    def cache_bytes(self, fields: _Fields) -> tuple[int | None, int | None]:
        """Bytes per token of context, and bytes whatever the context."""
        recurrent = self._state_bytes(fields)
        if len(self.kv_heads) != self.layers or not self.key_length or not self.value_length:
            return (0, recurrent) if recurrent and not self.heads else (None, None)
        windowed = self._windowed(fields)
        window = fields.of_model("attention.sliding_window") or 0
        cells = -(-(window + _BATCH_CELLS) // _CELLS) * _CELLS
        # Latent attention (MLA) keeps no values beside its compressed keys.
        values = 0 if fields.of_model("attention.key_length_mla") else self.value_length
        full_layer = (self.key_length + values) * _F16_BYTES
        window_layer = full_layer
        if windowed:
            keys = fields.of_model("attention.key_length_swa") or self.key_length
            window_layer = (
                keys + (fields.of_model("attention.value_length_swa") or self.value_length)
            ) * _F16_BYTES
        per_token = sum(
            heads * full_layer for layer, heads in enumerate(self.kv_heads) if layer not in windowed
        )
        per_window_cell = sum(self.kv_heads[layer] * window_layer for layer in windowed)
        return per_token, per_window_cell * cells + recurrent

    def _windowed(self, fields: _Fields) -> frozenset[int]:
        """The layers that see only a window."""
        if not fields.of_model("attention.sliding_window") or not self.layers:
            return frozenset()
        layers = range(self.layers)
        pattern = fields.per_layer("attention.sliding_window_pattern")
        if pattern:
            return frozenset(layer for layer in layers if pattern[layer % len(pattern)])
        period = fields.of_model("attention.sliding_window_pattern") or _WINDOW_PERIODS.get(
            fields.prefix
        )
        if not period:
            return frozenset()
        return frozenset(layer for layer in layers if layer % period < period - 1)

    def _state_bytes(self, fields: _Fields) -> int:
        """The recurrent states of one sequence, f32, as llama.cpp sizes them (`n_embd_r/s`)."""
        inner = fields.of_model("ssm.inner_size")
        state = fields.of_model("ssm.state_size")
        if not inner or not state or not self.layers:
            return 0
        groups = fields.of_model("ssm.group_count") or 0
        kernel = fields.of_model("ssm.conv_kernel") or 1
        layer = (kernel - 1) * (inner + 2 * groups * state) + inner * state
        recurrent = self.kv_heads.count(0) if 0 in self.kv_heads else self.layers
        return recurrent * layer * _F32_BYTES
