"""Which variant of a repository a person means."""

import re

from router.domain.catalog import CatalogRepo, IgnoredReason, Variant
from router.domain.errors import FileNotInRepo, IncompleteShards

_DEFAULTS = ("Q4_K_M", "Q8_0")


def choose(repo: CatalogRepo, *, path: str = "", quantization: str = "") -> Variant:
    """The variant that holds the file `path`, or that `owner/repo:QUANTIZATION` means.

    Without either, Q4_K_M, else Q8_0, else the first: the order of llama.cpp
    (`find_best_model` in `common/download.cpp`), which also looks for the quantization
    anywhere in the path, before a `.` or `-`. Raises `FileNotInRepo`, `IncompleteShards`.
    """
    if path:
        for variant in repo.variants:
            if any(file.path == path for file in variant.files if file.role == "model"):
                return variant
        raise _not_chosen(repo, path)
    for tag in (quantization,) if quantization else _DEFAULTS:
        found = _tagged(repo, tag)
        if found:
            return found
    if quantization:
        _refuse_incomplete(repo, quantization)
        there = ", ".join(sorted({v.quantization for v in repo.variants if v.quantization}))
        raise FileNotInRepo(
            f'repository "{repo.repo}" has no quantization "{quantization}"; '
            + (f"there are {there}" if there else "name a file instead"),
            param="model",
        )
    if not repo.variants:
        raise FileNotInRepo(f'repository "{repo.repo}" has no GGUF file', param="repo")
    return repo.variants[0]


def _tagged(repo: CatalogRepo, tag: str) -> Variant | None:
    """An exact quantization goes first: `IQ4_XS` does not mean `UD-IQ4_XS` when both are there."""
    for variant in repo.variants:
        if variant.quantization == tag.upper():
            return variant
    pattern = _before_end(tag)
    return next((v for v in repo.variants if pattern.search(v.filename)), None)


def _not_chosen(repo: CatalogRepo, path: str) -> FileNotInRepo | IncompleteShards:
    for file in repo.ignored:
        if file.path == path and file.reason is IgnoredReason.INCOMPLETE:
            return _incomplete(repo, path, file.detail)
        if file.path == path:
            return FileNotInRepo(
                f'file "{path}" of "{repo.repo}" is not a model: {file.detail}', param="filename"
            )
    return FileNotInRepo(
        f'repository "{repo.repo}" has no GGUF model "{path}" at commit {repo.commit[:12]}',
        param="filename",
    )


def _refuse_incomplete(repo: CatalogRepo, tag: str) -> None:
    for file in repo.ignored:
        if file.reason is IgnoredReason.INCOMPLETE and _before_end(tag).search(file.path):
            raise _incomplete(repo, file.path, file.detail)


def _incomplete(repo: CatalogRepo, path: str, detail: str) -> IncompleteShards:
    return IncompleteShards(
        f'"{path}" of "{repo.repo}" cannot be used: {detail} on the Hub', param="filename"
    )


def _before_end(tag: str) -> re.Pattern[str]:
    return re.compile(re.escape(tag) + "[.-]", re.IGNORECASE)
