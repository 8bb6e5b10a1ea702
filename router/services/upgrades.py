"""Newer commits on the Hub of what is registered: which there are, and taking one in."""

import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime

from router.domain.catalog import CatalogRepo, ModelFile, Variant
from router.domain.choice import choose
from router.domain.errors import (
    DomainError,
    FileNotInRepo,
    HubUnavailable,
    ModelBusy,
    UpToDate,
)
from router.domain.memory import DEFAULT_CONTEXT
from router.domain.models import Manifest, Model, ModelView
from router.domain.ports import Catalog, Store
from router.domain.tasks import UNFINISHED
from router.services import paging
from router.services.holdings import Holdings
from router.services.models import Models
from router.services.pinning import Pinning
from router.services.presence import Presence
from router.services.warnings import Warnings
from router.services.watch import Topic, Watchers

_PARALLEL = 8
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file in two commits; None where a commit does not have it."""

    path: str
    old: ModelFile | None
    new: ModelFile | None


@dataclass(frozen=True, slots=True)
class Outdated:
    """A model with a newer commit that has other files."""

    model: Model
    newest_commit: str
    last_modified: datetime | None
    changes: tuple[FileChange, ...]

    @property
    def download_bytes(self) -> int:
        """Size of the changed and added files."""
        return download_bytes(self.changes)


@dataclass(frozen=True, slots=True)
class Unchecked:
    """A model for which the question had no answer, and why."""

    model: Model
    error: DomainError


@dataclass(frozen=True, slots=True)
class OutdatedPage:
    """What was found out about one page of models; `next_token` "" is the end."""

    outdated: tuple[Outdated, ...]
    unchecked: tuple[Unchecked, ...]
    next_token: str


@dataclass(frozen=True, slots=True)
class Upgraded:
    """A model after its upgrade."""

    view: ModelView
    previous_commit: str
    changes: tuple[FileChange, ...]
    warnings: tuple[str, ...]

    @property
    def download_bytes(self) -> int:
        """Size of the changed and added files."""
        return download_bytes(self.changes)


class Upgrades:
    """Compares the registered models with the Hub. What a call confirmed survives any crash."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        models: Models,
        holdings: Holdings,
        presence: Presence,
        watchers: Watchers,
        *,
        context: int = DEFAULT_CONTEXT,
        patience: float = _PATIENCE_SECONDS,
    ) -> None:
        """Memory is estimated for `context` tokens; a page waits `patience` seconds at most."""
        self._store = store
        self._catalog = catalog
        self._models = models
        self._holdings = holdings
        self._watchers = watchers
        self._patience = patience
        # Shared by all who ask at a time: the Hub is not asked more for being asked about more.
        self._threads = ThreadPoolExecutor(_PARALLEL, thread_name_prefix="outdated")
        self._pinning = Pinning(catalog, context)
        self._warnings = Warnings(store, presence)

    def outdated(self, size: int, token: str) -> OutdatedPage:
        """Looks at one page of models, by name; asks the Hub once for each repository's revision.

        What keeps the Hub from answering for one model is told beside it. Changes nothing. Raises
        `InvalidArgument`, `InvalidPageToken`.
        """
        page = paging.page(
            size,
            token,
            lambda after, limit: self._store.models(after=after, limit=limit),
            lambda model: model.name,
        )
        # A model that was registered at a commit itself cannot be outdated.
        models = [model for model in page.items if not _is_fixed(model.manifest)]
        answers = self._ask({(m.manifest.repo, m.manifest.revision) for m in models})
        outdated, unchecked = [], []
        for model in models:
            try:
                found = _compare(model, answers[model.manifest.repo, model.manifest.revision])
            except DomainError as error:
                unchecked.append(Unchecked(model, error))
            else:
                if found is not None:
                    outdated.append(found)
        return OutdatedPage(tuple(outdated), tuple(unchecked), page.next_token)

    def upgrade(self, reference: str) -> Upgraded:
        """Registers the newest commit of a model's revision under the same id.

        The files of the earlier commit stay where they are. Raises `ModelNotFound`,
        `AmbiguousModel`, `UpToDate`, `ModelBusy`, `FileNotInRepo` when the newest commit has no
        such model, and what the Hub's failure means; nothing was changed then.
        """
        model = self._models.resolve(reference)
        if _is_fixed(model.manifest):
            raise UpToDate(
                f'model "{model.name}" was registered at the commit {model.manifest.commit[:12]} '
                "itself, which never changes: remove it and register a branch",
                param="model",
            )
        self._refuse_busy(model)
        repo = self._catalog.repo(model.manifest.repo, model.manifest.revision)
        found = _compare(model, repo)
        if found is None:
            raise UpToDate(
                f'model "{model.name}" is up to date: no file of it differs between its commit '
                f'{model.manifest.commit[:12]} and "{model.manifest.revision}" '
                f"({repo.commit[:12]})",
                param="model",
            )
        pinned = self._pinning.pin(repo, _variant(model, repo), model.manifest.revision)
        with self._store.transaction():
            # Meanwhile it may have been removed, ordered, or upgraded by somebody else.
            model = self._models.resolve(model.name)
            self._refuse_busy(model)
            if model.manifest.commit == repo.commit:
                raise UpToDate(f'model "{model.name}" was just upgraded', param="model")
            before = model.manifest
            changes = _changes(before, pinned.manifest.files)
            renewed = replace(
                model,
                manifest=pinned.manifest,
                facts=pinned.facts,
                required_memory_bytes=pinned.required_memory_bytes,
            )
            self._store.save_model(renewed)
            affected = self._holdings.renew(pinned.manifest)
            self._store.after_commit(lambda: self._tell(affected))
        return Upgraded(
            self._models.view(model.name),
            before.commit,
            changes,
            tuple(self._warnings.about(repo, renewed)),
        )

    def _ask(self, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], "_Answer"]:
        """The Hub's answer for each repository and revision, or why there is none."""
        deadline = time.monotonic() + self._patience
        asked = {
            key: self._threads.submit(self._catalog.repo, *key) for key in dict.fromkeys(wanted)
        }
        try:
            return {
                key: _outcome(future, deadline - time.monotonic()) for key, future in asked.items()
            }
        finally:
            for future in asked.values():
                future.cancel()

    def _refuse_busy(self, model: Model) -> None:
        tasks = self._store.tasks(model_name=model.name, states=UNFINISHED)
        if tasks:
            raise ModelBusy(
                f'model "{model.name}" has {len(tasks)} unfinished task(s), which fetch its '
                "present files: let them end, or cancel them first",
                param="model",
            )

    def _tell(self, node_ids: Iterable[str]) -> None:
        # Of an earlier, failed task a node keeps what is unfinished: it is told the new files.
        for node_id in node_ids:
            self._watchers.publish(Topic.ASSIGNMENT, node_id)


_Answer = CatalogRepo | DomainError


def download_bytes(changes: Iterable[FileChange]) -> int:
    """Size of the files that a node which holds the old ones has yet to fetch."""
    return sum(change.new.size_bytes for change in changes if change.new is not None)


def _outcome(future: "Future[CatalogRepo]", seconds: float) -> _Answer:
    try:
        return future.result(max(0.0, seconds))
    except DomainError as error:
        return error
    except TimeoutError:
        return HubUnavailable("the Hub is slow to answer; try again soon")


def _is_fixed(manifest: Manifest) -> bool:
    return manifest.revision == manifest.commit


def _compare(model: Model, answer: _Answer) -> Outdated | None:
    """How a model differs from what the Hub has now; None when no file of it does."""
    if isinstance(answer, DomainError):
        raise answer
    if answer.commit == model.manifest.commit:
        return None
    changes = _changes(model.manifest, _variant(model, answer).files)
    if not changes:
        return None
    return Outdated(model, answer.commit, answer.last_modified, changes)


def _variant(model: Model, repo: CatalogRepo) -> Variant:
    """What the model's id names in `repo` now."""
    first = model.manifest.files[0].path
    if model.manifest.format == "gguf":
        variant = choose(repo, path=first)
    else:
        variant = Variant(repo.repo, "", repo.conversion_files)
    if repo.repo != model.manifest.repo or not variant.files or variant.filename != first:
        raise FileNotInRepo(
            f'"{repo.repo}" holds no model "{first}" any more at commit {repo.commit[:12]}: '
            "register what it holds now under its own name",
            param="model",
        )
    return variant


def _changes(before: Manifest, files: Iterable[ModelFile]) -> tuple[FileChange, ...]:
    """The files that differ, by path.

    Where the Hub tells no digest, files of the same size count as the same.
    """
    old = {file.path: file for file in before.files}
    new = {file.path: file for file in files}
    return tuple(
        FileChange(path, old.get(path), new.get(path))
        for path in sorted(old.keys() | new.keys())
        if not _same(old.get(path), new.get(path))
    )


def _same(old: ModelFile | None, new: ModelFile | None) -> bool:
    if old is None or new is None or old.size_bytes != new.size_bytes:
        return False
    return None in (old.sha256, new.sha256) or old.sha256 == new.sha256
