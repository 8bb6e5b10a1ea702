"""Offline bundles: models with all their bytes in one file, out of a site and into another."""

import hashlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from router.domain.blobs import BlobReader, KeptBlobs, KeptFile
from router.domain.errors import (
    FailedPrecondition,
    InvalidModelName,
    ModelExists,
    PendingConversion,
    Unavailable,
)
from router.domain.models import Model, ModelStatus
from router.domain.ports import Clock, Store
from router.services import bundle_index, tar
from router.services.bundle_import import BLOBS, Import
from router.services.bundle_index import INDEX
from router.services.holdings import Holdings
from router.services.models import Models
from router.services.sources import Sources
from router.services.watch import Topic, Watchers

_CHUNK_BYTES = 1 << 20
_HERE = "127.0.0.1"  # the router reads from nodes itself


class DigestsUnknown(FailedPrecondition):
    """A file's digest is not known before a node has downloaded it."""

    reason = "DIGESTS_UNKNOWN"


class NotHeld(Unavailable):
    """Nobody who is online holds a file, or who does sends other bytes."""

    reason = "NOT_HELD"


@dataclass(frozen=True, slots=True)
class Export:
    """A bundle that is ready to be written: its exact length, and how to get its bytes."""

    models: tuple[Model, ...]
    size_bytes: int
    chunks: Generator[bytes]

    def close(self) -> None:
        """Lets go of what the chunks are read from."""
        self.chunks.close()


class Bundles:
    """Writes and reads bundles. Blocking; safe from any thread."""

    def __init__(
        self,
        store: Store,
        models: Models,
        holdings: Holdings,
        sources: Sources,
        kept: KeptBlobs,
        reader: BlobReader,
        watchers: Watchers,
        clock: Clock,
    ) -> None:
        """Contents go out of `sources`, and come into `kept`."""
        self._store = store
        self._models = models
        self._holdings = holdings
        self._sources = sources
        self._kept = kept
        self._reader = reader
        self._watchers = watchers
        self._clock = clock

    def export(self, references: Sequence[str]) -> Export:
        """A bundle with these models; asks no node yet.

        Raises `InvalidModelName`, `ModelNotFound`, `AmbiguousModel`, `PendingConversion`,
        `DigestsUnknown`, `NotHeld`. Its chunks raise `NotHeld` when a content cannot be had whole
        and right.
        """
        if not references:
            raise InvalidModelName("name at least one model", param="model_names")
        found = {model.name: model for model in map(self._models.resolve, references)}
        models = tuple(found.values())
        for model in models:
            self._require_whole(model)
        contents = bundle_index.contents(models)
        index = bundle_index.write(models, self._clock())
        size = tar.member_bytes(INDEX, len(index)) + len(tar.END)
        size += sum(tar.member_bytes(BLOBS + sha256, one) for sha256, one in contents.items())
        return Export(models, size, self._written(index, contents))

    def take_in(self) -> "Import":
        """Begins to read a bundle."""
        return Import(self._kept, self._refuse_others, self._register, self._clock)

    def collect(self) -> int:
        """Removes contents of models that are not registered any more; how many."""
        return self._kept.collect(self._wanted)

    def _wanted(self) -> set[str]:
        return {
            file.sha256
            for model in self._store.models()
            for file in model.manifest.files
            if file.sha256 is not None
        }

    def _require_whole(self, model: Model) -> None:
        if model.status is not ModelStatus.REGISTERED:
            raise PendingConversion(
                f'model "{model.name}" is not GGUF ({model.status}): '
                "it can be exported once it is converted",
                param="model_names",
            )
        for file in model.manifest.files:
            if file.sha256 is None:
                raise DigestsUnknown(
                    f'the digest of "{file.path}" is known once a node has downloaded '
                    f'"{model.name}": order it first',
                    param="model_names",
                )
            if not self._kept.has(file.sha256) and not self._sources.holders(file.sha256, _HERE):
                raise NotHeld(
                    f'no node that is online holds "{file.path}" of "{model.name}": '
                    "order it onto one, or wait until one is back",
                    param="model_names",
                )

    def _written(self, index: bytes, contents: dict[str, int]) -> Generator[bytes]:
        yield tar.header(INDEX, len(index)) + index + bytes(-len(index) % tar.BLOCK)
        for sha256, size in contents.items():
            yield tar.header(BLOBS + sha256, size)
            yield from self._content(sha256, size)
            if padding := -size % tar.BLOCK:
                yield bytes(padding)
        yield tar.END

    def _content(self, sha256: str, size: int) -> Iterator[bytes]:
        """The bytes of one content; what one node breaks off, another goes on with."""
        digest = hashlib.sha256()
        done = 0
        for read in self._ways(sha256, size):
            try:
                for data in read(done):
                    digest.update(data)
                    done += len(data)
                    yield data
            except OSError:
                continue
            if done == size:
                break
        if done != size:
            raise NotHeld(f"nobody who is online sent all of {sha256}: try again")
        if digest.hexdigest() != sha256:
            raise NotHeld(
                f"a node holds other bytes than {sha256}: its disk may be damaged; "
                "the agent's --scrub-interval finds such files"
            )

    def _ways(self, sha256: str, size: int) -> Iterator[Callable[[int], Iterator[bytes]]]:
        """How to read a content from an offset, one way after another."""
        kept = self._kept.find(sha256)
        if kept is not None:
            yield lambda offset: _read_file(kept, offset)
        if size == 0:
            yield lambda _: iter(())
        for place in self._sources.holders(sha256, _HERE):
            yield lambda offset, urls=place.urls: (  # type: ignore[misc]
                self._reader.read(urls, offset, size)
            )

    def _refuse_others(self, models: Sequence[Model]) -> list[bool]:
        """For each model whether it is registered as it is; raises `ModelExists` for another."""
        return [self._is_registered(model) for model in models]

    def _is_registered(self, model: Model) -> bool:
        present = self._store.model(model.name)
        if present is None:
            return False
        theirs = {file.path: file for file in present.manifest.files}
        same = present.manifest.same_files(model.manifest) and all(
            theirs[file.path].size_bytes == file.size_bytes
            and theirs[file.path].sha256 in (None, file.sha256)
            for file in model.manifest.files
        )
        if not same:
            raise ModelExists(
                f'model "{model.name}" is registered with other files (commit '
                f"{present.manifest.commit[:12]}, the bundle has {model.manifest.commit[:12]}): "
                "remove it first, or export the same commit",
                param="model",
            )
        return True

    def _register(self, models: Sequence[Model], contents: dict[str, int]) -> list[bool]:
        """Registers what is new; for each model whether it was there. All or nothing."""
        for sha256 in contents:
            if not self._kept.has(sha256):
                raise Unavailable("a model was removed while its files came in: import it again")
        with self._store.transaction():
            known = self._refuse_others(models)
            now = self._clock()
            for model, was_known in zip(models, known, strict=True):
                if was_known:
                    found = {file.path: file.sha256 or "" for file in model.manifest.files}
                    self._models.fix_digests(model.name, found)
                    continue
                self._store.add_model(replace(model, created_at=now))
                self._holdings.find(model.manifest)

            def tell() -> None:
                for model in models:
                    self._watchers.publish(Topic.MODEL, model.name)

            self._store.after_commit(tell)
        return known


def _read_file(kept: KeptFile, offset: int) -> Iterator[bytes]:
    with Path(kept.path).open("rb", buffering=0) as file:
        file.seek(offset)
        while data := file.read(_CHUNK_BYTES):
            yield data
