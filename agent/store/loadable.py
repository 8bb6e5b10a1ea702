"""Which files of a cache an inference engine can load as one model. Pure.

The rules are llama.cpp's (`common/download.cpp`): what is a model by its name, how shards belong
together, which projector goes with a model.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.store.cache import StoredFile, digest_in_name

_SHARD = re.compile(r"(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_NO_MODEL = ("imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
_PROJECTOR = "mmproj"
_BITS = re.compile(r"[-._](?:I?Q|BF|FP?)(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Loadable:
    """One model that is whole on this disk; every file of it is verified.

    `parts` are the model's shards in order, or its one file; `projector` is its mmproj, if any.
    """

    repo: str
    commit: str
    parts: tuple[StoredFile, ...]
    projector: StoredFile | None = None

    @property
    def stem(self) -> str:
        """The name of the first file, without folders, shard number and `.gguf`."""
        name = file_name(self.parts[0])
        shard = _SHARD.fullmatch(name)
        return shard["stem"] if shard else name[: -len(".gguf")]

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """Every file, the projector last."""
        return self.parts if self.projector is None else (*self.parts, self.projector)


def file_name(file: StoredFile) -> str:
    """A file's name without its folders."""
    return file.path.rpartition("/")[2]


def is_projector(file: StoredFile) -> bool:
    """Whether llama.cpp takes a file for a projector."""
    return _PROJECTOR in file_name(file).lower()


def is_sound(file: StoredFile) -> bool:
    """Whether a file was verified and its content is the one that its blob is named after."""
    named = digest_in_name(file.location)
    return file.sha256 is not None and (
        named is None or len(named) != len(file.sha256) or named == file.sha256
    )


def shard_set(path: str) -> str:
    """What the shards of one set have in common; for any other file its path."""
    shard = _SHARD.fullmatch(path)
    return f"{shard['stem']} of {shard['count']}" if shard else path


def loadable_models(files: Iterable[StoredFile]) -> list[Loadable]:
    """The models that are whole among these files, by repository, commit and path.

    Files that nobody has verified, and damaged ones, count as absent. A model that several commits
    show with the same content appears once.
    """
    snapshots: dict[tuple[str, str], list[StoredFile]] = {}
    for file in files:
        if is_sound(file) and file.path.lower().endswith(".gguf"):
            snapshots.setdefault((file.repo, file.commit), []).append(file)
    found = []
    seen: set[tuple[str, tuple[tuple[str, str | None], ...]]] = set()
    for (repo, commit), members in sorted(snapshots.items()):
        projectors = [file for file in members if is_projector(file)]
        for parts in _whole_sets(members):
            model = Loadable(repo, commit, parts, _nearest(parts[0].path, projectors))
            content = repo, tuple((file.path, file.sha256) for file in model.files)
            if content not in seen:
                seen.add(content)
                found.append(model)
    return found


def _whole_sets(files: Sequence[StoredFile]) -> list[tuple[StoredFile, ...]]:
    sets: dict[str, list[StoredFile]] = {}
    for file in sorted(files, key=lambda file: file.path):
        name = file_name(file)
        if not is_projector(file) and not any(word in name for word in _NO_MODEL):
            sets.setdefault(shard_set(file.path), []).append(file)
    return [tuple(parts) for parts in sets.values() if _is_whole(parts)]


def _is_whole(parts: Sequence[StoredFile]) -> bool:
    shards = [_SHARD.fullmatch(part.path) for part in parts]
    if shards[0] is None:
        return True
    present = [int(shard["index"]) for shard in shards if shard]
    return present == list(range(1, int(shards[0]["count"]) + 1))


def _nearest(model: str, projectors: Iterable[StoredFile]) -> StoredFile | None:
    """The projector in the nearest folder above the model, then of the nearest precision."""
    ranked = [
        ((folder.count("/"), bool(folder), -abs(_bits(file.path) - _bits(model))), file)
        for file in projectors
        if not (folder := file.path.rpartition("/")[0]) or model.startswith(f"{folder}/")
    ]
    return max(ranked, key=lambda entry: entry[0])[1] if ranked else None


def _bits(path: str) -> int:
    found = _BITS.findall(path)
    return int(found[-1]) if found else 0
