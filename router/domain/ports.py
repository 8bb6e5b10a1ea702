"""What the services need from outside; `app` plugs in what implements it."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from router.domain.catalog import (
    CatalogQuery,
    CatalogRepo,
    FileUrl,
    GgufFacts,
    RepoPage,
    Variant,
    VariantPage,
)
from router.domain.line import Site
from router.domain.models import Manifest, Model
from router.domain.nodes import Eviction, Node, RatesSet
from router.domain.orders import Order
from router.domain.tasks import Task, TaskMark, TaskState

Clock = Callable[[], datetime]


class Catalog(Protocol):
    """The Hub as we see it. Blocking; safe from any thread.

    Raises `HubUnavailable`, `HubRateLimited`, `HubGated`, `RepoNotFound`, `RevisionNotFound`,
    `FileNotInRepo`; and for names that break the grammar `InvalidModelName`.
    """

    def search_repos(self, query: CatalogQuery, page_size: int, page_token: str) -> RepoPage:
        """One page of repositories that hold GGUF files; `page_token` "" is the first.

        A page may be short, even empty, although `next_token` is set. Raises `InvalidPageToken`.
        """

    def search_variants(
        self, query: CatalogQuery, limit: int, offset: int, listing: str = ""
    ) -> VariantPage:
        """One page of the same list, flattened to variants.

        `listing` is the one of an earlier page; without it, pages after the first come from the
        list whose first page was asked for last. Raises `InvalidPageToken`.
        """

    def repo(self, repo: str, revision: str) -> CatalogRepo:
        """One repository at the commit that `revision` names now; never from a stale cache."""

    def facts(self, repo: str, commit: str, variant: Variant) -> GgufFacts | None:
        """What the first file's header tells; None when it cannot be read as GGUF."""

    def known_facts(self, repo: str, commit: str, variant: Variant) -> GgufFacts | None:
        """What `facts` told before; None when it was not asked. Never asks the Hub."""

    def read_headers(self, repo: str, commit: str, variants: Sequence[Variant]) -> None:
        """Sees to it that `known_facts` knows these variants, as far as the Hub answers soon.

        Reads a bounded number of headers at the same time; never raises.
        """

    def file_url(self, repo: str, commit: str, path: str, *, fresh: bool = False) -> FileUrl:
        """A URL for an agent: it needs no token, and may expire.

        Those who ask soon after one another are given the same, unless it must be `fresh`.
        """


class CatalogCache(Protocol):
    """Rows of what the Hub said, kept over restarts and bounded in number and bytes."""

    def get(self, kind: str, key: str) -> tuple[bytes, datetime] | None:
        """The row's body and when it was put, or None; counts as a use."""

    def put(self, kind: str, key: str, body: bytes, at: datetime) -> None:
        """Keeps a row; what was used least recently goes when a bound is reached."""

    def put_many(self, kind: str, rows: Iterable[tuple[str, bytes]], at: datetime) -> None:
        """Keeps several rows in one transaction."""

    def delete(self, kind: str, key: str) -> None:
        """Forgets a row."""


class Store(Protocol):
    """What must survive. Reads run on any thread; every write runs inside `transaction`.

    Lists that page take the last id of the page before (`after`, `before`), "" for the first.
    """

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing; durable on return; one writer at a time; may be nested."""

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Runs `callback` once the present transaction is durable, before the next begins."""

    def next_epoch(self, now: datetime) -> int:
        """A number larger than every one before, also after the store was lost."""

    def add_model(self, model: Model) -> None:
        """Keeps a new model."""

    def save_model(self, model: Model) -> None:
        """Replaces everything of a model but its id, repository and time of registration."""

    def save_manifest(self, name: str, manifest: Manifest) -> None:
        """Replaces a model's manifest."""

    def delete_model(self, name: str) -> None:
        """Forgets a model and who holds it."""

    def model(self, name: str) -> Model | None:
        """The model with this id."""

    def models(self, *, after: str = "", limit: int | None = None) -> list[Model]:
        """Models by name."""

    def models_of_repo(self, repo: str) -> list[Model]:
        """The models of one repository, by name."""

    def add_order(self, order: Order) -> None:
        """Keeps a new order."""

    def save_order(self, order: Order) -> None:
        """Keeps what changes of an order: its tasks, waves, exclusions, and whether it goes on."""

    def order(self, order_id: str) -> Order | None:
        """The order with this id."""

    def order_of_request(self, request_id: str) -> Order | None:
        """The order that a request with this id made."""

    def orders(self, *, before: str = "", limit: int = 100) -> list[Order]:
        """Orders, the newest first."""

    def orders_of(self, model_name: str = "", *, watched: bool = False) -> list[Order]:
        """The orders of a model, or of all, the oldest first; only the watched ones if asked so."""

    def add_tasks(self, tasks: Sequence[Task]) -> None:
        """Keeps new tasks."""

    def save_task(self, task: Task) -> None:
        """Replaces a task."""

    def save_tasks(self, tasks: Iterable[Task]) -> None:
        """Replaces tasks."""

    def task(self, task_id: str) -> Task | None:
        """The task with this id."""

    def tasks_by_id(self, task_ids: Iterable[str]) -> list[Task]:
        """The tasks with these ids, in the order of the ids."""

    def task_marks(self, task_ids: Iterable[str]) -> list[TaskMark]:
        """Where the tasks with these ids stand, in the order of the ids."""

    def tasks(
        self,
        *,
        before: str = "",
        limit: int | None = None,
        states: Iterable[TaskState] = (),
        model_name: str = "",
        node_id: str = "",
    ) -> list[Task]:
        """Tasks that fit every filter given, the newest first."""

    def latest_tasks(self, *, model_name: str = "", node_id: str = "") -> list[TaskMark]:
        """Of each model on each node the newest task, unless that completed or was cancelled."""

    def resumable_tasks(self, node_id: str = "") -> list[Task]:
        """The tasks of a node, or of any, whose bytes are to stay: unfinished, failed, or cancelled
        so. The oldest first.
        """

    def save_node(self, node: Node) -> None:
        """Keeps a node, new or known."""

    def save_disk(self, node_id: str, free: int, total: int, seen_at: datetime) -> bool:
        """Notes the bytes on a node's disk, and when it was seen; whether the node is known."""

    def rates_set(self) -> dict[str, RatesSet]:
        """What a node itself obeys, by node, where an operator has set any of it."""

    def delete_node(self, node_id: str) -> None:
        """Forgets a node with its tasks, holdings and evictions."""

    def node(self, node_id: str) -> Node | None:
        """The node with this id."""

    def nodes_named(self, name: str) -> list[Node]:
        """The nodes with this name, by id."""

    def nodes(
        self, *, after: tuple[str, str] | None = None, limit: int | None = None
    ) -> list[Node]:
        """Nodes by name, then id; those after the pair of name and id `after`."""

    def node_names(self) -> dict[str, str]:
        """The name of every node, by its id."""

    def save_site(self, site: Site) -> None:
        """Keeps the limits of a site, new or known."""

    def sites(self) -> list[Site]:
        """The sites that an operator has set limits of, by name."""

    def save_holding(self, model_name: str, node_id: str, verified_at: datetime | None) -> None:
        """Notes that a node holds a model, verified at that moment, or lost it (None)."""

    def save_holdings(self, holdings: Iterable[tuple[str, str, datetime | None]]) -> None:
        """Notes (model, node, moment): the node holds it, verified then, or lost it (None)."""

    def delete_holding(self, model_name: str, node_id: str) -> None:
        """Forgets that a node held a model."""

    def holdings(
        self, *, model_name: str = "", node_id: str = ""
    ) -> list[tuple[str, str, datetime | None]]:
        """(model, node, moment) of a model, of a node, or of all."""

    def ready_counts(self) -> dict[str, int]:
        """On how many nodes each model is verified; models that are on none are left out."""

    def add_eviction(self, eviction: Eviction) -> None:
        """Keeps a new eviction."""

    def delete_evictions(self, node_id: str, eviction_ids: Iterable[str]) -> int:
        """Forgets evictions of a node; how many there were."""

    def evictions(self, node_id: str = "") -> list[Eviction]:
        """The evictions that a node, or any, has not done yet, the oldest first."""
