"""The supported models: register, find, list, remove."""

from dataclasses import dataclass, replace

from protos import names
from router.domain.catalog import CatalogRepo, Variant
from router.domain.choice import choose
from router.domain.errors import (
    AmbiguousModel,
    InvalidModelName,
    ModelBusy,
    ModelExists,
    ModelNotFound,
)
from router.domain.memory import DEFAULT_CONTEXT
from router.domain.models import (
    Manifest,
    Model,
    ModelStatus,
    ModelView,
    plain_name,
    variant_name,
)
from router.domain.nodes import Eviction
from router.domain.ports import Catalog, Clock, Store
from router.domain.tasks import UNFINISHED, Event, advance
from router.services import paging
from router.services.board import Board
from router.services.holdings import Holdings
from router.services.ids import new_id
from router.services.pinning import Pinning
from router.services.presence import Presence
from router.services.warnings import Warnings
from router.services.watch import Topic, Watchers

_MAX_DISPLAY_NAME = 200
_MAX_CHAT_TEMPLATE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Registration:
    """What to register: a file, or a quantization, or neither: then llama.cpp's choice."""

    repo: str
    path: str = ""
    quantization: str = ""
    revision: str = "main"
    display_name: str = ""
    chat_template: str = ""


class Models:
    """The registered models. What a call confirmed survives any crash."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        holdings: Holdings,
        presence: Presence,
        board: Board,
        watchers: Watchers,
        clock: Clock,
        *,
        context: int = DEFAULT_CONTEXT,
    ) -> None:
        """Registers from `catalog` into `store`; memory is estimated for `context` tokens."""
        self._store = store
        self._catalog = catalog
        self._holdings = holdings
        self._board = board
        self._watchers = watchers
        self._clock = clock
        self._pinning = Pinning(catalog, context)
        self._warnings = Warnings(store, presence)

    def register(self, wanted: Registration) -> tuple[ModelView, list[str]]:
        """Pins a variant of the Hub as a supported model; the model, and warnings.

        Asks the Hub. Raises `InvalidModelName`, `RepoNotFound`, `RevisionNotFound`,
        `FileNotInRepo`, `IncompleteShards`, `ModelExists`, `HubGated`, `HubUnavailable`,
        `HubRateLimited`; nothing was changed then.
        """
        _check(wanted)
        if wanted.path:
            self._refuse_known(names.model_name(wanted.repo, wanted.path))
        repo = self._catalog.repo(wanted.repo, wanted.revision)
        model = self._pin(repo, wanted)
        self._refuse_known(model.name)
        with self._store.transaction():
            self._refuse_known(model.name)
            self._store.add_model(model)
            self._store.after_commit(lambda: self._watchers.publish(Topic.MODEL, model.name))
            self._holdings.find(model.manifest)
        return self.view(model.name), self._warnings.about(repo, model)

    def resolve(self, reference: str) -> Model:
        """The model that an id or alias names. Raises `ModelNotFound`, `AmbiguousModel`."""
        model = self._store.model(reference)
        if model is not None:
            return model
        try:
            parsed = names.model_reference(reference)
        except names.InvalidName as error:
            raise ModelNotFound(f"not registered: {error}", param="model") from None
        if parsed.model_name is not None:
            model = self._store.model(parsed.model_name)
            if model is not None:
                return model
            raise _unknown(reference)
        candidates = [
            model
            for model in self._store.models_of_repo(parsed.repo)
            if parsed.quantization is None
            or model.manifest.quantization.upper() == parsed.quantization.upper()
        ]
        if len(candidates) == 1:
            return candidates[0]
        if not candidates:
            raise _unknown(reference)
        fitting = ", ".join(f'"{model.name}"' for model in candidates[:5])
        raise AmbiguousModel(
            f'"{reference}" fits {len(candidates)} models, name one of them: {fitting}',
            param="model",
        )

    def same(self, reference: str, name: str) -> bool:
        """Whether a reference names the model with this id, registered or not any more."""
        return reference == name or self.resolve(reference).name == name

    def of_repo(self, repo: str) -> list[Model]:
        """The supported models of one repository, the one registered last first."""
        found = [
            model
            for model in self._store.models_of_repo(repo)
            if model.status is ModelStatus.REGISTERED
        ]
        return sorted(found, key=lambda model: model.created_at, reverse=True)

    def get(self, reference: str) -> ModelView:
        """The model that an id or alias names, with its nodes."""
        return self.view(self.resolve(reference).name)

    def view(self, name: str) -> ModelView:
        """The model with exactly this id, with its nodes. Raises `ModelNotFound`."""
        model = self._store.model(name)
        if model is None:
            raise _unknown(name)
        return ModelView(model, self._holdings.of_model(name))

    def page(self, size: int, token: str) -> paging.Page[ModelView]:
        """Models by name, with their nodes."""
        holdings = self._holdings.by_model()

        def fetch(after: str, limit: int) -> list[ModelView]:
            return [
                ModelView(model, tuple(holdings.get(model.name, ())))
                for model in self._store.models(after=after, limit=limit)
            ]

        return paging.page(size, token, fetch, lambda view: view.model.name)

    def supported(self) -> list[tuple[Model, int]]:
        """Every model that can be ordered, by name, and the number of nodes that hold it."""
        counts = self._holdings.ready_counts()
        return [
            (model, counts.get(model.name, 0))
            for model in self._store.models()
            if model.status is ModelStatus.REGISTERED
        ]

    def all(self) -> list[ModelView]:
        """Every model by name, with its nodes."""
        holdings = self._holdings.by_model()
        return [
            ModelView(model, tuple(holdings.get(model.name, ()))) for model in self._store.models()
        ]

    def unregister(self, reference: str, *, force: bool = False, evict: bool = False) -> None:
        """Takes a model off the list; with `evict` its files leave the nodes that hold them.

        Orders of it that would go on, for later waves or nodes that join, are cancelled.
        Raises `ModelNotFound`, and `ModelBusy` while tasks run, unless `force`: they are cancelled.
        """
        now = self._clock()
        with self._store.transaction():
            model = self.resolve(reference)
            tasks = self._store.tasks(model_name=model.name, states=UNFINISHED)
            if tasks and not force:
                raise ModelBusy(
                    f'model "{model.name}" has {len(tasks)} unfinished task(s): '
                    "cancel them first, or force it",
                    param="model",
                )
            cancelled = [self._board.settled(advance(task, Event.CANCEL, now)) for task in tasks]
            for task in cancelled:
                self._store.save_task(task)
            for order in self._store.orders_of(model.name, watched=True):
                self._store.save_order(replace(order, cancelled=True, watched=False))
            affected = {task.node_id for task in tasks}
            affected |= {node_id for _, node_id, _ in self._store.holdings(model_name=model.name)}
            if evict:
                for node_id in sorted(affected):
                    self._store.add_eviction(
                        Eviction(new_id("evict", now), node_id, model.manifest, now)
                    )
            self._store.delete_model(model.name)

            def tell() -> None:
                self._board.put(cancelled)
                self._watchers.publish(Topic.MODEL, model.name)
                for task in cancelled:
                    self._watchers.publish(Topic.TASK, task.task_id)
                for node_id in affected:
                    self._watchers.publish(Topic.NODE, node_id)
                    self._watchers.publish(Topic.ASSIGNMENT, node_id)

            self._store.after_commit(tell)

    def fix_digests(self, name: str, found: dict[str, str]) -> None:
        """Takes in digests that the Hub did not tell, from the first verified download."""
        with self._store.transaction():
            model = self._store.model(name)
            if model is None:
                return
            files = tuple(
                replace(file, sha256=file.sha256 or found.get(file.path))
                for file in model.manifest.files
            )
            if files == model.manifest.files:
                return
            pinned = model.manifest
            self._store.save_manifest(
                name,
                Manifest.pin(
                    model_name=name,
                    repo=pinned.repo,
                    revision=pinned.revision,
                    commit=pinned.commit,
                    quantization=pinned.quantization,
                    files=files,
                ),
            )
            node_ids = {
                task.node_id for task in self._store.tasks(model_name=name, states=UNFINISHED)
            }

            def tell() -> None:
                self._watchers.publish(Topic.MODEL, name)
                for node_id in node_ids:
                    self._watchers.publish(Topic.ASSIGNMENT, node_id)

            self._store.after_commit(tell)

    def _refuse_known(self, name: str) -> None:
        if self._store.model(name) is not None:
            raise ModelExists(f'model "{name}" is registered already', param="model")

    def _pin(self, repo: CatalogRepo, wanted: Registration) -> Model:
        convertible = repo.convertible and not wanted.path and not wanted.quantization
        if convertible:
            variant = Variant(repo.repo, "", repo.conversion_files)
        else:
            variant = choose(repo, path=wanted.path, quantization=wanted.quantization)
        pinned = self._pinning.pin(repo, variant, wanted.revision)
        shown = plain_name(repo.repo) if convertible else variant_name(variant)
        return Model(
            name=variant.name,
            display_name=wanted.display_name or shown,
            status=ModelStatus.PENDING_CONVERSION if convertible else ModelStatus.REGISTERED,
            manifest=pinned.manifest,
            required_memory_bytes=pinned.required_memory_bytes,
            chat_template=wanted.chat_template or None,
            facts=pinned.facts,
            created_at=self._clock(),
        )


def _check(wanted: Registration) -> None:
    for param, check, text in (
        ("repo", names.repo_id, wanted.repo),
        ("revision", names.revision, wanted.revision),
        ("filename", names.file_path, wanted.path or None),
        ("repo", names.quantization, wanted.quantization or None),
    ):
        try:
            if text is not None:
                check(text)
        except names.InvalidName as error:
            raise InvalidModelName(str(error), param=param) from None
    if wanted.path and wanted.quantization:
        raise InvalidModelName("name a file or a quantization, not both", param="filename")
    if len(wanted.display_name) > _MAX_DISPLAY_NAME or not wanted.display_name.isprintable():
        raise InvalidModelName(
            f"a display name has at most {_MAX_DISPLAY_NAME} printable characters",
            param="display_name",
        )
    try:
        wanted.chat_template.encode()
    except UnicodeEncodeError:
        raise InvalidModelName("the chat template is not Unicode", param="chat_template") from None
    if len(wanted.chat_template) > _MAX_CHAT_TEMPLATE:
        raise InvalidModelName(
            f"a chat template has at most {_MAX_CHAT_TEMPLATE} characters", param="chat_template"
        )


def _unknown(reference: str) -> ModelNotFound:
    return ModelNotFound(f'model "{reference}" is not registered', param="model")
