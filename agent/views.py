"""Folders in which engines other than the cache's own find the models: links only, never copies.

* llama.cpp's `llama-server --models-dir`: a file for each model that is one file, a folder for
  one of shards or with a projector, whose name then begins with `mmproj` (`tools/server/README.md`,
  "Using multiple models").
* LM Studio's `models`: `<publisher>/<repo>/<file>.gguf` (its documentation, "Import models").
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from agent.links import LinkFolder
from agent.store.cache import StoredFile
from agent.store.loadable import Loadable, file_name

Names = Mapping[str, Path]
Layout = Callable[[Sequence[Loadable], Names], Names]


class FolderView:
    """One folder, kept true to the models that are whole on this disk."""

    def __init__(self, links: LinkFolder, layout: Layout) -> None:
        self._links = links
        self._layout = layout

    async def follow(self, models: Sequence[Loadable]) -> None:
        """Makes the folder show these models and no others of this agent. Raises `OSError`."""
        names = self._layout(models, self._links.made)
        await asyncio.to_thread(self._links.follow, names)


def llama_server_names(models: Sequence[Loadable], present: Names) -> Names:
    """What `--models-dir` should hold; `present` is what it holds of ours.

    llama-server calls a model by its file or folder here. Of several models with the same file name
    one has it, and keeps it as long as it is there; any other is called
    `<owner>--<repo>--<its path>`. Of several commits' files of one path the newest is shown.
    """
    titles: dict[str, Loadable] = {}
    for model in sorted(_newest(models), key=lambda model: not _has(model, model.stem, present)):
        full = _full_title(model)
        taken = model.stem in titles or _has(model, full, present)
        titles[full if taken else model.stem] = model
    names = {}
    for title, model in titles.items():
        if len(model.files) == 1:
            names[f"{title}.gguf"] = model.parts[0].location
            continue
        for part in model.parts:
            names[f"{title}/{file_name(part)}"] = part.location
        if model.projector is not None:
            names[f"{title}/{_projector_name(model.projector)}"] = model.projector.location
    return names


def lm_studio_names(models: Sequence[Loadable], present: Names) -> Names:
    """What LM Studio's folder should hold. Of files with one name the newest is shown."""
    files = {file for model in models for file in model.files}
    names: dict[str, Path] = {}
    for file in sorted(files, key=lambda file: (-_written(file), file.path)):
        names.setdefault(f"{file.repo}/{file_name(file)}", file.location)
    return names


def _newest(models: Iterable[Loadable]) -> list[Loadable]:
    newest: dict[tuple[str, str], Loadable] = {}
    for model in models:
        key = model.repo, model.parts[0].path
        if key not in newest or _written(model.parts[0]) > _written(newest[key].parts[0]):
            newest[key] = model
    return [newest[key] for key in sorted(newest)]


def _has(model: Loadable, title: str, present: Names) -> bool:
    """Whether a model is shown under a title now."""
    first = model.parts[0]
    places = (f"{title}.gguf", f"{title}/{file_name(first)}")
    return any(present.get(place) == first.location for place in places)


def _full_title(model: Loadable) -> str:
    folders = model.parts[0].path.split("/")[:-1]
    return "--".join((*model.repo.split("/"), *folders, model.stem))


def _projector_name(projector: StoredFile) -> str:
    name = file_name(projector)
    return name if name.startswith("mmproj") else f"mmproj-{name}"


def _written(file: StoredFile) -> int:
    try:
        return file.location.stat().st_mtime_ns
    except OSError:
        return 0
