"""How far the estimate of a model's memory is from what real llama.cpp allocates.

    python -m bench.memory

Loads small models with the prebuilt llama.cpp of `make llama-check` and compares the buffers that
it says it allocated with the parts of `router.domain.memory`'s formula. The formula's fixed 64 MiB
stand for the program, which no buffer tells, and are left out on both sides.
"""

import json
import subprocess
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.demo.llama_check import CHECKOUT, install_llama_cpp
from deploy.demo.models import MIB, make_model
from router.domain.memory import OVERHEAD_BYTES, required_memory_bytes
from router.hub.gguf_header import read_facts

_SPECIMENS = {"Q4_0": None, "Q8_0": None, "F32": None, "F16": 64 * MIB, "BF16": 256 * MIB}
_CONTEXTS = (512, 2048)


def main() -> None:
    """Prints the comparison, a row for each model and context."""
    module = install_llama_cpp(CHECKOUT / ".cache" / "llama.cpp")
    table = Table(box=None, pad_edge=False)
    table.add_column("MODEL")
    heads = ("CONTEXT", "WEIGHTS", "KV", "COMPUTE", "LLAMA.CPP", "ESTIMATE", "OFF BY")
    for head in heads:
        table.add_column(head, justify="right")
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as folder:
        paths = [
            make_model(Path(folder) / f"{size or 0}-{kind}.gguf", kind, size_bytes=size)
            for kind, size in _SPECIMENS.items()
        ]
        for context in _CONTEXTS:
            for path, buffers in zip(paths, _allocated(module, context, paths), strict=True):
                table.add_row(*_compared(path, context, buffers))
    Console().print(table)


def _allocated(module: Path, context: int, paths: list[Path]) -> list[dict[str, float]]:
    """Bytes by kind of buffer, for each file."""
    script = Path(__file__).with_suffix(".mjs")
    command = ["node", str(script), module.as_uri(), str(context), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line)["buffers"] for line in done.stdout.splitlines()]


def _compared(path: Path, context: int, buffers: dict[str, float]) -> list[str]:
    content = path.read_bytes()
    facts = read_facts(lambda offset, length: content[offset : offset + length], len(content))
    ours = required_memory_bytes(len(content), facts, context) - OVERHEAD_BYTES
    theirs = sum(buffers.values())
    parts = (buffers.get("model", 0), buffers.get("KV", 0), buffers.get("compute", 0))
    return [
        path.stem.partition("-")[2],
        str(context),
        *(f"{part / MIB:.2f} MiB" for part in (*parts, theirs, ours)),
        f"{(ours - theirs) / theirs:+.1%}",
    ]


if __name__ == "__main__":
    main()
