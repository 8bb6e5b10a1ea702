"""Registered models as a repository with commits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from router.domain.models import Model
from router.protocol.commits import MAIN_NAMES, Commit, commit_of, lfs_entry
from router.protocol.tree import sibling

# llama.cpp's, when no tag is given.
_PREFERRED = ("Q4_K_M", "Q8_0")
_NO_TAG = "LATEST"


@dataclass(frozen=True, slots=True)
class View:
    """What of a repository is registered, at one revision."""

    commit: Commit
    model_of: Mapping[str, Model]  # by path
    changed_at: datetime

    @property
    def date(self) -> str:
        """When the newest model was registered, as the Hub writes it."""
        moment = self.changed_at.astimezone(UTC).isoformat(timespec="milliseconds")
        return moment.replace("+00:00", "Z")


def view(models: Sequence[Model], revision: str) -> View | None:
    """The models (of one repository, the newest first) at a revision; None: none is there.

    `main` is everything that is registered of it. When that is of several commits, `main` is a
    commit of its own, with an id made of its content. Every registered commit is there too, and
    every branch or tag that one was registered by.
    """
    whole = _together(models)
    if revision in MAIN_NAMES or revision == whole.commit.id:
        return whole
    for at in ("commit", "revision"):
        some = [model for model in models if getattr(model.manifest, at) == revision]
        if some:
            return _together(some)
    return None


def description(repo: str, shown: View) -> dict[str, Any]:
    """What is told of a repository beside its files."""
    return {
        "_id": repo,
        "id": repo,
        "modelId": repo,
        "author": repo.partition("/")[0],
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": ["gguf"],
        "library_name": "gguf",
        "lastModified": shown.date,
        "createdAt": shown.date,
    }


def manifest_of(models: Sequence[Model], tag: str) -> dict[str, Any] | None:
    """What a tag means, as the Hub answers llama.cpp: the first file, and the projector if any.

    `latest` is llama.cpp's own choice: Q4_K_M, Q8_0, the first.
    """
    by_tag = {model.manifest.quantization.upper(): model for model in reversed(models)}
    wanted = [*_PREFERRED, *sorted(by_tag)] if tag.upper() == _NO_TAG else [tag.upper()]
    model = next((by_tag[one] for one in wanted if one in by_tag), None)
    if model is None:
        return None
    files = [
        sibling(lfs_entry(file.path, file.size_bytes, file.sha256), with_blob=True)
        for file in model.manifest.files
        if file.sha256 is not None
    ]
    if not files:
        return None
    projectors = [file for file in files[1:] if "mmproj" in file["rfilename"]]
    return {"ggufFile": files[0]} | ({"mmprojFile": projectors[0]} if projectors else {})


def _together(models: Sequence[Model]) -> View:
    """Every file of the models whose digest is known; of two with one path, the newer model's."""
    model_of: dict[str, Model] = {}
    entries = {}
    for model in models:
        for file in model.manifest.files:
            if file.sha256 is not None and file.path not in entries:
                entries[file.path] = lfs_entry(file.path, file.size_bytes, file.sha256)
                model_of[file.path] = model
    listed = tuple(entries[path] for path in sorted(entries))
    commits = {model.manifest.commit for model in models}
    commit = Commit(commits.pop(), listed) if len(commits) == 1 else commit_of(listed)
    return View(commit, model_of, max(model.created_at for model in models))
