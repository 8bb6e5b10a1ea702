"""Small real models, and a folder of repositories as `llm-router-hub` serves it.

`python -m deploy.demo.models FOLDER` lays the catalog out; from Python: `make_model`,
`make_shards`, `make_catalog`.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import click

from deploy.demo.tiny_llama import MIB, QUANTIZATIONS, make_model, make_shards, make_weights

__all__ = ["BIG", "CATALOG", "MIB", "QUANTIZATIONS", "SHARDED", "make_catalog"]
__all__ += ["make_model", "make_shards"]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One model of a repository; `path` of a sharded one has no `-00001-of-…` yet.

    Without `size_bytes` the model is as small as it can be.
    """

    path: str
    quantization: str
    size_bytes: int | None = None
    shards: int = 1


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository of the catalog: what its card says, and its models."""

    id: str
    about: str
    models: tuple[ModelFile, ...]
    chat: bool = False


def _flat(stem: str, *quantizations: str) -> tuple[ModelFile, ...]:
    return tuple(ModelFile(f"{stem}-{name}.gguf", name) for name in quantizations)


BIG = "tiny-org/big-llama-GGUF"
SHARDED = "tiny-org/wide-llama-GGUF"
UNCONVERTED = "tiny-org/tiny-llama"
CATALOG = (
    Repository(
        "tiny-org/tiny-llama-GGUF",
        "One tiny model in many quantizations.",
        _flat("tiny-llama", "F32", "F16", "BF16", "Q8_0", "Q5_0", "Q4_0"),
    ),
    Repository(
        "tiny-org/tiny-llama-chat-GGUF",
        "With a chat template; each quantization in a folder of its own.",
        tuple(
            ModelFile(f"{name}/tiny-llama-chat-{name}.gguf", name)
            for name in ("BF16", "Q8_0", "Q4_0")
        ),
        chat=True,
    ),
    Repository(
        SHARDED,
        "Its larger quantization comes in three shards.",
        (
            ModelFile("Q8_0/wide-llama-Q8_0.gguf", "Q8_0", 24 * MIB, shards=3),
            ModelFile("wide-llama-Q4_0.gguf", "Q4_0"),
        ),
    ),
    Repository(
        BIG,
        "Large enough to watch it arrive.",
        (
            ModelFile("big-llama-F16.gguf", "F16", 256 * MIB),
            ModelFile("big-llama-Q8_0.gguf", "Q8_0", 16 * MIB),
        ),
    ),
    Repository(
        "story-lab/bedtime-stories-GGUF",
        "Tells the shortest stories.",
        (
            ModelFile("bedtime-stories-Q8_0.gguf", "Q8_0", 4 * MIB),
            ModelFile("bedtime-stories-Q4_1.gguf", "Q4_1"),
        ),
    ),
    Repository(
        "acme-ai/code-mini-GGUF",
        "Completes very small programs.",
        _flat("code-mini", "F16", "Q8_0", "Q5_1", "Q4_0"),
    ),
)


def make_catalog(folder: Path, *, big_bytes: int | None = None) -> tuple[str, ...]:
    """Lays out `owner/repo/files` under `folder`; returns the ids of the repositories.

    About 320 MiB in a few seconds; `big_bytes` replaces the 256 MiB of the largest file, for
    tests. Besides the GGUF repositories there is one of plain weights, which waits for conversion.
    """
    for seed, repository in enumerate(CATALOG):
        root = folder / repository.id
        for model in repository.models:
            size = model.size_bytes
            if big_bytes is not None and size is not None:
                size = min(size, big_bytes)
            path = root / model.path
            if model.shards > 1:
                make_shards(
                    path.parent,
                    path.stem,
                    model.quantization,
                    shards=model.shards,
                    size_bytes=size,
                    seed=seed,
                )
            else:
                make_model(
                    path, model.quantization, size_bytes=size, seed=seed, chat=repository.chat
                )
        _write_card(root, repository.id, repository.about, ["gguf", "llama"])
    make_weights(folder / UNCONVERTED)
    _write_card(folder / UNCONVERTED, UNCONVERTED, "The weights as they were trained.", ["llama"])
    return (*(repository.id for repository in CATALOG), UNCONVERTED)


def _write_card(root: Path, repo: str, about: str, tags: list[str]) -> None:
    """The model card; its front matter is what the Hub reads as metadata."""
    name = repo.partition("/")[2]
    library = "gguf" if "gguf" in tags else "transformers"
    card = [
        "---",
        "license: mit",
        "language: en",
        f"library_name: {library}",
        "pipeline_tag: text-generation",
        *([f"base_model: {UNCONVERTED}"] if "gguf" in tags else []),
        "tags:",
        *(f"- {tag}" for tag in tags),
        "---",
        "",
        f"# {name}",
        "",
        f"{about} Random weights, made for trying llm-router: it speaks nonsense.",
        "",
    ]
    (root / "README.md").write_text("\n".join(card), encoding="utf-8")
    if not (root / "config.json").exists():
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
        (root / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Lays out a small catalog of models in FOLDER, for llm-router-hub to serve."""
    for repo in make_catalog(folder):
        files = sorted(path for path in (folder / repo).rglob("*") if path.is_file())
        size = sum(path.stat().st_size for path in files) / 1e6
        click.echo(f"{repo:<34} {len(files):>2} files  {size:8.1f} MB")


if __name__ == "__main__":
    main()
