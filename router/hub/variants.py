"""What can be chosen from a repository: variants, companions, and what is neither. Pure.

The rules are llama.cpp's (`common/download.cpp`), so that what an operator sees here is what
`llama-server -hf owner/repo:QUANT` would load: which names are models, how shards belong
together, which projector goes with which model.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from protos import names
from router.domain.catalog import (
    FileRole,
    HubFile,
    IgnoredFile,
    IgnoredReason,
    ModelFile,
    Variant,
)

_SHARD = re.compile(r"(?P<set>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.[a-z]+)", re.I)
# Cut by other tools than llama.cpp's; nothing reads such a part alone.
_OTHER_PART = re.compile(r"\.gguf[.-](?:part[-_.]?\w+|split[-_.]?\w+|\d{1,3})$", re.I)
# K-quants and the older ones, IQ, TQ and the floating point formats, as file names write them.
_QUANTIZATION = re.compile(
    r"(?<![A-Za-z0-9])"
    r"((?:UD-)?(?:I?Q[1-9](?:_[A-Z0-9]{1,4})*|TQ[12]_[0-9]|(?:MX|NV)FP[4-8](?:_[A-Z]{1,4})*"
    r"|BF16|FP?16|FP?32|FP?64))"
    r"(?![A-Za-z0-9])",
    re.I,
)
_NO_MODEL = {
    "imatrix": "an importance matrix, used to quantize",
    "mtp-": "a draft model for multi-token prediction",
    "eagle3-": "a draft model for speculative decoding",
    "dflash-": "a draft model for speculative decoding",
    "dspark-": "a draft model for speculative decoding",
}
_PROJECTOR = "mmproj"
_CONFIG = re.compile(
    r"(?:config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens"
    r"|vocab|preprocessor_config|processor_config|chat_template"
    r"|model\.safetensors\.index|pytorch_model\.bin\.index)\.json"
    r"|(?:[\w.-]+\.(?:model|tiktoken|jinja))|merges\.txt|vocab\.txt"
)
_WEIGHTS = (
    re.compile(r"model(?:-\d{5}-of-\d{5})?\.safetensors"),
    re.compile(r"pytorch_model(?:-\d{5}-of-\d{5})?\.bin"),
)


@dataclass(frozen=True, slots=True)
class Contents:
    """What the files of a repository amount to. Every list is in the order of paths.

    `conversion_files` are the weights and what belongs to them, when there is no GGUF.
    """

    variants: tuple[Variant, ...]
    conversion_files: tuple[ModelFile, ...]
    ignored: tuple[IgnoredFile, ...]


def quantization_of(path: str) -> str:
    """The quantization that a path tells, upper case: the last that the file's name holds.

    Falls back to the folders, innermost first; "" when none tells it.
    """
    folders, _, name = _without_shard(path).rpartition("/")
    for part in (name, *reversed(folders.split("/"))):
        found = _QUANTIZATION.findall(part)
        if found:
            return str(found[-1]).upper()
    return ""


def is_relevant(path: str) -> bool:
    """Whether a file can play a part in a model; other files need not be kept."""
    lower = path.lower()
    return (
        lower.endswith((".gguf", ".safetensors", ".bin"))
        or _OTHER_PART.search(lower) is not None
        or ("/" not in path and _CONFIG.fullmatch(path) is not None)
    )


def read_contents(repo: str, files: Iterable[HubFile]) -> Contents:
    """Reads the files of one commit; a path that is listed twice counts once."""
    by_path = {file.path: file for file in files}
    ordered = [by_path[path] for path in sorted(by_path)]
    ignored: list[IgnoredFile] = []
    singles: list[HubFile] = []
    projectors: list[HubFile] = []
    sets: dict[tuple[str, int], dict[int, HubFile]] = {}
    for file in ordered:
        lower = file.path.lower()
        if not lower.endswith(".gguf"):
            if _OTHER_PART.search(lower):
                ignored.append(_unusable(file, "a part of a file that was cut without gguf-split"))
            continue
        problem = _name_problem(repo, file.path)
        name = file.path.rpartition("/")[2]
        shard = _SHARD.fullmatch(file.path)
        companion = next((text for word, text in _NO_MODEL.items() if word in name), None)
        if problem:
            ignored.append(_unusable(file, problem))
        elif file.size_bytes <= 0:
            ignored.append(_unusable(file, "the file is empty"))
        elif _PROJECTOR in name.lower():
            projectors.append(file)
        elif companion:
            ignored.append(IgnoredFile(file.path, IgnoredReason.COMPANION, companion))
        elif shard and int(shard["count"]) > 1:
            index, count = int(shard["index"]), int(shard["count"])
            if 1 <= index <= count:
                sets.setdefault((shard["set"], count), {})[index] = file
            else:
                ignored.append(_unusable(file, f"there cannot be a shard {index} of {count}"))
        else:
            singles.append(file)

    models: list[tuple[HubFile, ...]] = [(file,) for file in singles]
    for (_, count), shards in sets.items():
        if len(shards) == count:
            models.append(tuple(shards[index] for index in range(1, count + 1)))
        else:
            missing = f"{count - len(shards)} of {count} shards are missing"
            ignored += [
                IgnoredFile(file.path, IgnoredReason.INCOMPLETE, missing)
                for file in shards.values()
            ]
    attached: set[str] = set()
    variants = []
    for model in sorted(models, key=lambda model: model[0].path):
        projector = _nearest_projector(model[0].path, projectors)
        parts = [_model_file(file, FileRole.MODEL) for file in model]
        if projector:
            attached.add(projector.path)
            parts.append(_model_file(projector, FileRole.MMPROJ))
        variants.append(Variant(repo, quantization_of(model[0].path), tuple(parts)))
    ignored += [
        IgnoredFile(file.path, IgnoredReason.COMPANION, "a projector that no model here takes")
        for file in projectors
        if file.path not in attached
    ]
    return Contents(
        tuple(variants),
        () if variants else _conversion_files(ordered),
        tuple(sorted(ignored, key=lambda file: file.path)),
    )


def _nearest_projector(model: str, projectors: Sequence[HubFile]) -> HubFile | None:
    """The projector in the nearest folder above the model, then of the nearest precision."""
    best: HubFile | None = None
    best_rank = (0, 0)
    for projector in projectors:
        folder = projector.path.rpartition("/")[0]
        if folder and not model.startswith(f"{folder}/"):
            continue
        depth = folder.count("/") + 1 if folder else 0
        rank = (depth, -abs(_bits(projector.path) - _bits(model)))
        if best is None or rank > best_rank:
            best, best_rank = projector, rank
    return best


def _bits(path: str) -> int:
    digits = re.search(r"\d+", quantization_of(path))
    return int(digits[0]) if digits else 0


def _conversion_files(files: Sequence[HubFile]) -> tuple[ModelFile, ...]:
    """Weights and configuration of a transformers model; () when they are not all there."""
    usable = [file for file in files if "/" not in file.path and file.size_bytes > 0]
    if not any(file.path == "config.json" for file in usable):
        return ()
    config = [_model_file(file, FileRole.CONFIG) for file in usable if _CONFIG.fullmatch(file.path)]
    for pattern in _WEIGHTS:
        weights = [file for file in usable if pattern.fullmatch(file.path)]
        if weights and _all_shards(weights):
            return (*(_model_file(file, FileRole.WEIGHTS) for file in weights), *config)
    return ()


def _all_shards(weights: Sequence[HubFile]) -> bool:
    shards = [match for file in weights if (match := _SHARD.fullmatch(file.path))]
    if not shards:
        return True
    counts = {int(shard["count"]) for shard in shards}
    indices = {int(shard["index"]) for shard in shards}
    return len(counts) == 1 and indices == set(range(1, counts.pop() + 1))


def _without_shard(path: str) -> str:
    shard = _SHARD.fullmatch(path)
    return shard["set"] if shard else path.rpartition(".")[0]


def _name_problem(repo: str, path: str) -> str:
    try:
        names.model_name(repo, path)
    except names.InvalidName as error:
        return str(error)
    return ""


def _unusable(file: HubFile, detail: str) -> IgnoredFile:
    shown = "".join(c if c.isprintable() else "?" for c in file.path)[:200]
    return IgnoredFile(shown, IgnoredReason.UNUSABLE, detail)


def _model_file(file: HubFile, role: FileRole) -> ModelFile:
    return ModelFile(file.path, file.size_bytes, file.sha256, role)
