"""Writes GGUF headers byte by byte, also those that no writer would make."""

import struct
from collections.abc import Callable, Mapping, Sequence
from random import Random

Value = int | float | bool | str | Sequence[int] | Sequence[str] | Sequence[bool]


def text(content: str) -> bytes:
    """A GGUF string."""
    raw = content.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(content: Value) -> bytes:
    """A typed value: u32 or u64, f32, bool, string, or an array of u32, bool or string."""
    if isinstance(content, bool):
        return struct.pack("<I?", 7, content)
    if isinstance(content, int):
        large = content >= 1 << 32
        return struct.pack("<IQ", 10, content) if large else struct.pack("<II", 4, content)
    if isinstance(content, float):
        return struct.pack("<If", 6, content)
    if isinstance(content, str):
        return struct.pack("<I", 8) + text(content)
    head = struct.pack("<I", 9)
    if all(isinstance(item, str) for item in content):
        return head + struct.pack("<IQ", 8, len(content)) + b"".join(text(str(i)) for i in content)
    if all(isinstance(item, bool) for item in content):
        return head + struct.pack(f"<IQ{len(content)}?", 7, len(content), *content)
    return head + struct.pack(f"<IQ{len(content)}I", 4, len(content), *content)


def header(
    values: Mapping[str, Value],
    tensors: Mapping[str, Sequence[int]] | None = None,
    *,
    version: int = 3,
) -> bytes:
    """A whole header; `tensors` are names and shapes."""
    tensors = tensors or {}
    parts = [b"GGUF", struct.pack("<IQQ", version, len(tensors), len(values))]
    parts += [text(key) + value(content) for key, content in values.items()]
    parts += [
        text(name)
        + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        + struct.pack("<IQ", 0, 32 * number)
        for number, (name, shape) in enumerate(tensors.items())
    ]
    return b"".join(parts)


def reader(content: bytes) -> Callable[[int, int], bytes]:
    """`read(offset, length)` over bytes in memory."""
    return lambda offset, length: content[offset : offset + length]


def mutated(content: bytes, random: Random) -> bytes:
    """The header with a few lies: flipped bytes, huge or odd numbers, cuts, doubled parts."""
    changed = bytearray(content)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(max(1, len(changed)))
        kind = random.randrange(6)
        if kind == 0:
            changed[at : at + 1] = bytes([random.randrange(256)])
        elif kind == 1:
            number = random.choice([0, 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1])
            changed[at : at + 8] = struct.pack("<Q", number)
        elif kind == 2:
            changed[at : at + 4] = struct.pack("<I", random.choice([0, 8, 9, 10, 12, 13, 2**31]))
        elif kind == 3:
            del changed[at:]
        elif kind == 4:
            changed[at:at] = changed[at : at + random.randrange(64)]
        else:
            changed[at : at + 8] = random.randbytes(8)
    return bytes(changed)
