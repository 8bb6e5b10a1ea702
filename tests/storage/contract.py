"""What every store must do, whatever keeps the rows."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from router.domain.catalog import FileRole, GgufFacts, ModelFile
from router.domain.line import Site, timed_rate
from router.domain.models import Manifest, Model, ModelStatus
from router.domain.nodes import Eviction, Gpu, Node, RatesSet, Settings
from router.domain.orders import Order, OrderOptions, OrderTarget
from router.domain.ports import Store
from router.domain.rollouts import Rollout
from router.domain.tasks import (
    UNFINISHED,
    Bytes,
    Progress,
    Task,
    TaskFailure,
    TaskMark,
    TaskState,
)
from router.domain.windows import Window

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def model(name: str = "hf/o/r/m.gguf", repo: str = "o/r", digest: str | None = "a" * 64) -> Model:
    """A model with every field set."""
    files = (
        ModelFile("m.gguf", 2**40, digest, FileRole.MODEL),
        ModelFile("mm🦙.gguf", 10, None, FileRole.MMPROJ),
    )
    manifest = Manifest.pin(
        model_name=name,
        repo=repo,
        revision="main",
        commit="c" * 40,
        quantization="Q8_0",
        files=files,
    )
    return Model(
        name=name,
        display_name="Ä model",
        status=ModelStatus.REGISTERED,
        manifest=manifest,
        required_memory_bytes=2**41,
        chat_template="{{ x }}\n",
        facts=GgufFacts(architecture="llama", parameters=10**12, name="x"),
        created_at=NOW,
    )


def task(task_id: str = "task-1", **changes: object) -> Task:
    """A task with every field set."""
    made = Task(
        task_id=task_id,
        order_id="order-1",
        model_name="hf/o/r/m.gguf",
        node_id="node-1",
        state=TaskState.FAILED,
        attempt=3,
        bytes_total=2**40,
        priority=-5,
        created_at=NOW,
        updated_at=NOW,
        started_at=NOW,
        ended_at=NOW + timedelta(days=1),
        failure=TaskFailure("disk", "full", retryable=True),
        keep_partial=False,
        progress=Progress(bytes_done=5, bytes_from=Bytes(1, 2, 3, 4)),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def order(order_id: str = "order-1", request_id: str = "") -> Order:
    """An order for two nodes."""
    return Order(
        order_id=order_id,
        model_name="hf/o/r/m.gguf",
        target=OrderTarget.SPECIFIC,
        node_ids=("node-1", "node-2"),
        task_ids=("task-1", "task-2"),
        request_id=request_id,
        created_at=NOW,
        labels={"gpu": "a100"},
        options=OrderOptions(
            True, Rollout(1, 25, 0, 2), Window("22:00", "06:00", "Europe/Berlin"), "hf/o/r/old.gguf"
        ),
        priority=-3,
        waves=(("node-1",), ("node-2",)),
        excluded=("node-3",),
    )


SITE = Site(
    "a", 5, (timed_rate("22:00", "06:00", 0), timed_rate("12:00", "12:30", 7)), "Europe/Berlin"
)


def node(node_id: str = "node-1", name: str = "box") -> Node:
    """A node with every field set."""
    return Node(
        node_id=node_id,
        name=name,
        version="1.2.3",
        labels={"site": "a"},
        memory_bytes=2**38,
        gpus=(Gpu("G", 2**34),),
        disk_free_bytes=2**41,
        disk_total_bytes=2**42,
        settings=Settings(max_rate=1, max_upload_rate=2, max_concurrent=3, reserve=7),
        created_at=NOW,
        last_seen_at=NOW,
        set_labels={"rack": "9"},
        set_max_rate=0,
        set_max_upload_rate=5,
        set_max_hub_rate=6,
    )


class StoreContract:
    """Inherit it, and give a fixture `store` with an empty store."""

    def test_everything_is_read_back_as_it_was_written(self, store: Store) -> None:
        bare = replace(
            model("hf/o/r/bare.gguf"), required_memory_bytes=None, chat_template=None, facts=None
        )
        waiting = task("task-2", started_at=None, ended_at=None, failure=None, keep_partial=True)
        eviction = Eviction("evict-1", "node-1", model().manifest, NOW)

        with store.transaction():
            for one in (model(), bare):
                store.add_model(one)
            store.add_order(order())
            store.add_tasks([task(), waiting])
            store.save_node(node())
            store.save_holding("hf/o/r/m.gguf", "node-1", NOW)
            store.add_eviction(eviction)
            store.save_site(SITE)

        assert [store.model(name) for name in (model().name, bare.name)] == [model(), bare]
        assert store.order("order-1") == order()
        assert [store.task("task-1"), store.task("task-2")] == [task(), waiting]
        assert store.node("node-1") == node()
        assert store.holdings() == [("hf/o/r/m.gguf", "node-1", NOW)]
        assert store.evictions("node-1") == store.evictions() == [eviction]
        assert store.sites() == [SITE]
        assert store.rates_set() == {"node-1": RatesSet(0, 5)}

    def test_what_is_not_there_is_none(self, store: Store) -> None:
        lone: list[object] = [
            find("x")
            for find in (
                store.model,
                store.order,
                store.task,
                store.node,
                store.order_of_request,
            )
        ]
        lists: list[object] = [
            store.models(),
            store.orders(),
            store.tasks(),
            store.nodes(),
            store.holdings(),
            store.evictions(),
            store.sites(),
        ]
        assert lone == [None] * 5
        assert lists == [[]] * 7
        assert store.node_names() == {}
        assert store.ready_counts() == {}

    def test_a_transaction_is_all_or_nothing_and_its_news_too(self, store: Store) -> None:
        heard: list[str] = []

        with pytest.raises(RuntimeError), store.transaction():
            store.save_node(node())
            store.after_commit(lambda: heard.append("lost"))
            raise RuntimeError("halfway")
        with store.transaction():
            store.after_commit(lambda: heard.append("kept"))
            before = list(heard)

        assert store.nodes() == []
        assert (before, heard) == ([], ["kept"])

    def test_a_nested_transaction_that_fails_takes_only_its_own_part_back(
        self, store: Store
    ) -> None:
        heard: list[str] = []

        with store.transaction():
            store.save_node(node("outer"))
            store.after_commit(lambda: heard.append("outer"))
            with pytest.raises(RuntimeError), store.transaction():
                store.save_node(node("inner"))
                store.after_commit(lambda: heard.append("inner"))
                raise RuntimeError("halfway")
            assert heard == []

        assert list(store.node_names()) == ["outer"]
        assert heard == ["outer"]

    def test_news_come_in_the_order_of_commits_whatever_the_thread(self, store: Store) -> None:
        heard: list[int] = []
        committed: list[int] = []

        def write(number: int) -> None:
            with store.transaction():
                store.save_node(node(f"node-{number}"))
                committed.append(number)
                store.after_commit(lambda: heard.append(number))

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(write, range(40)))

        assert heard == committed
        assert len(store.nodes()) == 40

    def test_readers_never_wait_and_never_see_half_a_transaction(self, store: Store) -> None:
        stop = threading.Event()
        torn: list[tuple[int, int]] = []

        def read() -> None:
            while not stop.is_set():
                names = {found.name for found in store.nodes()}
                if len(names) > 1:
                    torn.append((len(names), 0))

        with ThreadPoolExecutor(4) as threads:
            readers = [threads.submit(read) for _ in range(4)]
            for round_number in range(30):
                with store.transaction():
                    for number in range(3):
                        store.save_node(node(f"node-{number}", name=f"round-{round_number}"))
            stop.set()
            for reader in readers:
                reader.result()

        assert torn == []

    def test_epochs_grow_even_when_the_clock_does_not(self, store: Store) -> None:
        first = store.next_epoch(NOW)
        same = store.next_epoch(NOW)
        earlier = store.next_epoch(NOW - timedelta(days=1))
        later = store.next_epoch(NOW + timedelta(days=1))

        assert first < same < earlier < later

    def test_models_are_listed_by_name_in_pages_and_by_repository(self, store: Store) -> None:
        names = [f"hf/o/r{number}/m.gguf" for number in range(4)]
        with store.transaction():
            for number in (2, 0, 3, 1):
                store.add_model(model(names[number], f"o/r{number}"))

        assert [found.name for found in store.models()] == names
        page = store.models(after=names[0], limit=2)
        assert [found.name for found in page] == names[1:3]
        assert [found.name for found in store.models_of_repo("o/r3")] == [names[3]]

    def test_a_removed_model_takes_its_holdings_along(self, store: Store) -> None:
        with store.transaction():
            store.add_model(model())
            store.save_holding(model().name, "node-1", NOW)
            store.delete_model(model().name)

        assert store.model(model().name) is None
        assert store.holdings() == []

    def test_a_manifest_is_replaced(self, store: Store) -> None:
        fixed = model(digest="b" * 64).manifest
        with store.transaction():
            store.add_model(model(digest=None))
            store.save_manifest(model().name, fixed)

        assert store.model(model().name) == model(digest="b" * 64)

    def test_orders_are_listed_newest_first_and_found_by_request(self, store: Store) -> None:
        with store.transaction():
            for number in range(4):
                store.add_order(order(f"order-{number}", "r" if number == 2 else ""))

        assert [found.order_id for found in store.orders(limit=2)] == ["order-3", "order-2"]
        rest = store.orders(before="order-2", limit=5)
        assert [found.order_id for found in rest] == ["order-1", "order-0"]
        found = store.order_of_request("r")
        assert found is not None
        assert found.order_id == "order-2"

    def test_what_changes_of_an_order_is_kept(self, store: Store) -> None:
        changed = replace(
            order(),
            task_ids=("task-1", "task-2", "task-3"),
            waves=(("node-1",), ("node-2",), ("node-3",)),
            excluded=("node-9",),
            cancelled=True,
            watched=True,
        )
        with store.transaction():
            store.add_order(order())
            store.save_order(changed)

        assert store.order("order-1") == changed

    def test_orders_are_found_by_their_model_and_whether_they_go_on(self, store: Store) -> None:
        with store.transaction():
            for number in range(3):
                made = order(f"order-{number}")
                name = "hf/o/r/other.gguf" if number == 1 else made.model_name
                store.add_order(replace(made, model_name=name, watched=number > 0))

        def ids(found: list[Order]) -> list[str]:
            return [order.order_id for order in found]

        assert ids(store.orders_of()) == ["order-0", "order-1", "order-2"]
        assert ids(store.orders_of("hf/o/r/m.gguf")) == ["order-0", "order-2"]
        assert ids(store.orders_of(watched=True)) == ["order-1", "order-2"]
        assert ids(store.orders_of("hf/o/r/m.gguf", watched=True)) == ["order-2"]

    def test_it_is_told_in_short_where_many_tasks_stand(self, store: Store) -> None:
        ids = [f"task-{number:04}" for number in range(600)]
        with store.transaction():
            store.add_tasks([task(name, state=TaskState.FAILED) for name in ids])

        marks = store.task_marks([*reversed(ids), "task-none"])

        assert [mark.task_id for mark in marks] == ids[::-1]
        assert marks[0] == TaskMark(ids[-1], "hf/o/r/m.gguf", "node-1", TaskState.FAILED)

    def test_two_orders_of_one_request_cannot_both_be_kept(self, store: Store) -> None:
        with store.transaction():
            store.add_order(order("order-1", "r"))

        with pytest.raises(Exception), store.transaction():  # noqa: B017 - the database's own
            store.add_order(order("order-2", "r"))

        assert len(store.orders()) == 1

    def test_tasks_are_found_by_every_filter(self, store: Store) -> None:
        with store.transaction():
            store.add_tasks(
                [
                    task("task-1", state=TaskState.PENDING),
                    task("task-2", node_id="node-2", state=TaskState.PAUSED),
                    task("task-3", model_name="hf/o/x/m.gguf", state=TaskState.COMPLETED),
                ]
            )

        def ids(**filters: object) -> list[str]:
            return [found.task_id for found in store.tasks(**filters)]  # type: ignore[arg-type]

        assert ids() == ["task-3", "task-2", "task-1"]
        assert ids(states=UNFINISHED) == ["task-2", "task-1"]
        assert ids(model_name="hf/o/r/m.gguf", node_id="node-1") == ["task-1"]
        assert ids(before="task-3", limit=1) == ["task-2"]

    def test_many_tasks_are_kept_and_found_in_the_order_asked_for(self, store: Store) -> None:
        many = [task(f"task-{number:04}", node_id=f"node-{number}") for number in range(1200)]
        wanted = [made.task_id for made in reversed(many)]
        with store.transaction():
            store.add_tasks(many)

        found = store.tasks_by_id([*wanted, "task-nobody"])

        assert [one.task_id for one in found] == wanted

    def test_the_newest_task_of_a_model_on_a_node_is_shown_unless_it_is_done(
        self, store: Store
    ) -> None:
        with store.transaction():
            store.add_tasks(
                [
                    task("task-1", state=TaskState.FAILED),
                    task("task-2", state=TaskState.PENDING),
                    task("task-3", node_id="node-2", state=TaskState.FAILED),
                    task("task-4", node_id="node-2", state=TaskState.COMPLETED),
                    task("task-5", node_id="node-3", state=TaskState.CANCELLED),
                ]
            )

        assert [found.task_id for found in store.latest_tasks()] == ["task-2"]
        assert store.latest_tasks(node_id="node-2") == []
        assert len(store.latest_tasks(model_name="hf/o/r/m.gguf")) == 1

    def test_a_node_s_bytes_stay_for_tasks_that_may_go_on(self, store: Store) -> None:
        with store.transaction():
            store.add_tasks(
                [
                    task("task-1", state=TaskState.PAUSED),
                    task("task-2", state=TaskState.FAILED),
                    task("task-3", state=TaskState.CANCELLED, keep_partial=True),
                    task("task-4", state=TaskState.CANCELLED),
                    task("task-5", state=TaskState.COMPLETED),
                    task("task-6", state=TaskState.PENDING, node_id="node-2"),
                ]
            )

        kept = [found.task_id for found in store.resumable_tasks("node-1")]
        assert kept == ["task-1", "task-2", "task-3"]

    def test_a_saved_task_replaces_the_old_one(self, store: Store) -> None:
        with store.transaction():
            store.add_tasks([task()])
            store.save_task(task(state=TaskState.PENDING, failure=None, ended_at=None))

        assert store.tasks() == [task(state=TaskState.PENDING, failure=None, ended_at=None)]

    def test_nodes_are_listed_by_name_then_id_in_pages(self, store: Store) -> None:
        with store.transaction():
            for node_id, name in (("c", "x"), ("a", "y"), ("b", "x")):
                store.save_node(node(node_id, name))

        assert [found.node_id for found in store.nodes()] == ["b", "c", "a"]
        assert [found.node_id for found in store.nodes(after=("x", "b"), limit=1)] == ["c"]
        assert [found.node_id for found in store.nodes(after=("x", "bb"))] == ["c", "a"]
        assert [found.node_id for found in store.nodes_named("x")] == ["b", "c"]
        assert store.node_names() == {"a": "y", "b": "x", "c": "x"}

    def test_a_forgotten_node_takes_everything_of_it_along(self, store: Store) -> None:
        with store.transaction():
            for node_id in ("node-1", "node-2"):
                store.save_node(node(node_id))
                store.add_tasks([task(f"task-{node_id}", node_id=node_id)])
                store.save_holding("m", node_id, NOW)
                store.add_eviction(Eviction(f"e-{node_id}", node_id, model().manifest, NOW))
            store.delete_node("node-1")

        assert list(store.node_names()) == ["node-2"]
        assert [found.node_id for found in store.tasks()] == ["node-2"]
        assert [found.node_id for found in store.evictions()] == ["node-2"]
        assert store.holdings() == [("m", "node-2", NOW)]

    def test_holdings_are_counted_when_they_are_verified(self, store: Store) -> None:
        with store.transaction():
            for name, node_id, moment in (
                ("m", "node-1", NOW),
                ("m", "node-2", NOW),
                ("m", "node-3", None),
                ("x", "node-1", None),
            ):
                store.save_holding(name, node_id, moment)
            store.save_holding("m", "node-2", None)

        assert store.ready_counts() == {"m": 1}
        assert store.holdings(model_name="x") == [("x", "node-1", None)]
        assert len(store.holdings(node_id="node-1")) == 2
        with store.transaction():
            store.delete_holding("m", "node-1")
        assert store.ready_counts() == {}

    def test_evictions_are_forgotten_for_their_own_node_only(self, store: Store) -> None:
        with store.transaction():
            store.add_eviction(Eviction("e", "node-1", model().manifest, NOW))
            others = store.delete_evictions("node-2", ["e"])
            own = store.delete_evictions("node-1", ["e", "unknown"])

        assert (others, own) == (0, 1)
        assert store.evictions() == []
