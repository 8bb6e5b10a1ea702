"""Carries orders out over time: waves, nodes that join, windows, and the model that goes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from router.domain.models import Model
from router.domain.nodes import Node
from router.domain.orders import Order
from router.domain.ports import Clock, Store
from router.domain.rollouts import Standing, next_wave
from router.domain.tasks import ENDED, Task, TaskState
from router.domain.windows import Window
from router.services.evictions import Evictions
from router.services.presence import Presence
from router.services.task_book import TaskBook
from router.services.watch import Topic, Watchers

AWAY = timedelta(seconds=60)
"""A wave no longer waits for a node of which nothing was heard for so long."""


class Rollouts:
    """What is to be done for orders when tasks, the fleet or the time of day change.

    Everything that changes something runs inside the caller's transaction: together with what led
    to it, it survives any crash.
    """

    def __init__(
        self,
        store: Store,
        presence: Presence,
        book: TaskBook,
        evictions: Evictions,
        watchers: Watchers,
        clock: Clock,
    ) -> None:
        """Opens tasks in `book`."""
        self._store = store
        self._presence = presence
        self._book = book
        self._evictions = evictions
        self._watchers = watchers
        self._clock = clock
        self._started_at = clock()
        self._looked_at = self._started_at

    # What leads to something

    def begin(self, order: Order, model: Model, nodes: Sequence[Node]) -> Order:
        """Keeps a new order, and opens the tasks of its first wave."""
        order = replace(order, watched=True)
        self._store.add_order(order)
        return self._advance(order, model, {node.node_id: node for node in nodes})

    def settled(self, tasks: Iterable[Task]) -> None:
        """These tasks have ended: the model that was to go goes, and the next wave may begin."""
        ended = {task.task_id: task for task in tasks}
        if not ended:
            return
        names = {task.model_name for task in ended.values()}
        for order in self._watched(lambda order: order.model_name in names):
            mine = [ended[task_id] for task_id in order.task_ids if task_id in ended]
            if order.options.replaces:
                for task in mine:
                    if task.state is TaskState.COMPLETED:
                        self._remove_replaced(order, task.node_id)
            if mine:
                self._advance(order)

    def retried(self, task: Task) -> None:
        """A task that had ended goes on: so do the orders that it belongs to."""
        for order in self._store.orders_of(task.model_name):
            if task.task_id in order.task_ids and not order.cancelled and not order.watched:
                self._advance(order)

    def repaired(self, order_id: str, tasks: Iterable[Task]) -> None:
        """These tasks bring back what an order had brought before: they belong to it, too."""
        order = self._store.order(order_id)
        if order is not None:
            ids = (*order.task_ids, *(task.task_id for task in tasks))
            order = replace(order, task_ids=ids)
            self._store.save_order(order)
            self._advance(order)

    def joined(self, node: Node) -> None:
        """A node has come, or has other labels: orders that are for it may give it a task."""
        for order in self._watched(lambda order: order.is_for(node.node_id, node.effective_labels)):
            known = self._store.tasks(model_name=order.model_name, node_id=node.node_id)
            if not any(task.task_id in order.task_ids for task in known):
                self._advance(order)

    def evicted(self, model_name: str, node: Node) -> None:
        """An operator has evicted a model: no order that follows brings it back there."""
        for order in self._watched(
            lambda order: (
                order.model_name == model_name
                and order.options.follow
                and order.is_for(node.node_id, node.effective_labels)
            )
        ):
            self._store.save_order(replace(order, excluded=(*order.excluded, node.node_id)))

    def cancel(self, order: Order) -> Order:
        """No more tasks are opened for an order."""
        order = replace(order, cancelled=True, watched=False)
        self._store.save_order(order)
        return order

    def look_at_the_time(self) -> None:
        """To be called at every full minute: windows open and close then, and waves stop waiting
        for nodes that stay away.
        """
        if self._watched(_in_waves):
            with self._store.transaction():
                for order in self._watched(_in_waves):
                    self._advance(order)
        now = self._clock()
        before = self._looked_at
        for order in self._watched(lambda order: _turns(order.options.window, before, now)):
            for mark in self._store.task_marks(order.task_ids):
                if mark.state not in ENDED:
                    self._watchers.publish(Topic.ASSIGNMENT, mark.node_id)
        self._looked_at = now

    # How it stands

    def standing(self, order: Order, fleet: Mapping[str, Node]) -> Standing:
        """How an order stands in a fleet of nodes by id."""
        marks = self._store.task_marks(order.task_ids)
        states = {mark.node_id: mark.state for mark in marks}
        now = self._clock()
        return Standing(
            waves=order.waves,
            states=states,
            candidates=self._candidates(order, fleet, states) if order.watched else (),
            away=frozenset(node.node_id for node in fleet.values() if self._is_away(node, now)),
        )

    def holds(self) -> dict[str, str]:
        """The tasks that wait for a window, and what to tell their nodes.

        A task waits when the windows of all orders that it belongs to are closed.
        """
        now = self._clock()
        closed: dict[str, str] = {}
        names: set[str] = set()
        for order in self._watched(lambda order: order.options.window is not None):
            window = order.options.window
            if window is not None and not window.is_open(now):
                zone = f" {window.time_zone}" if window.time_zone else ""
                closed[order.order_id] = f"waits for {window.start}{zone}"
                names.add(order.model_name)
        holds: dict[str, str] = {}
        wanted_now: set[str] = set()
        for order in (order for name in names for order in self._store.orders_of(name)):
            if order.order_id in closed:
                holds.update(dict.fromkeys(order.task_ids, closed[order.order_id]))
            elif not order.cancelled:
                wanted_now.update(order.task_ids)
        return {task_id: text for task_id, text in holds.items() if task_id not in wanted_now}

    def wanting(self, model_name: str, node_id: str, order: Order) -> Order | None:
        """Another order that wants the model on the node, although `order` is to replace it."""
        node = self._store.node(node_id)
        labels = {} if node is None else node.effective_labels
        for other in self._store.orders_of(model_name, watched=True):
            if other.is_for(node_id, labels) and self._brings(other, node_id):
                return other
        newest = self._store.tasks(model_name=model_name, node_id=node_id, limit=1)
        if newest and newest[0].order_id > order.order_id:
            return self._store.order(newest[0].order_id)
        return None

    def _brings(self, order: Order, node_id: str) -> bool:
        """Whether an order follows, or its wave with this node is still to come."""
        return order.options.follow or not any(node_id in wave for wave in order.waves)

    # Inside

    def _watched(self, fitting: Callable[[Order], bool]) -> list[Order]:
        return [order for order in self._store.orders_of(watched=True) if fitting(order)]

    def _candidates(
        self, order: Order, fleet: Mapping[str, Node], states: Mapping[str, TaskState]
    ) -> list[str]:
        first = [fleet[node_id] for node_id in order.node_ids if node_id in fleet]
        named = set(order.node_ids)
        joined = [node for node in fleet.values() if node.node_id not in named]
        joined.sort(key=lambda node: (node.created_at, node.node_id))
        waiting = [
            node.node_id
            for node in (*first, *joined)
            if node.node_id not in states
            and order.is_for(node.node_id, node.effective_labels)
            and self._brings(order, node.node_id)
        ]
        return sorted(waiting, key=lambda node_id: not self._presence.online(node_id))

    def _advance(
        self,
        order: Order,
        model: Model | None = None,
        fleet: Mapping[str, Node] | None = None,
    ) -> Order:
        """Opens the tasks of the next wave, if it is its time; whether the order is watched on."""
        if order.watched and order.options.rollout is not None and self._waits(order):
            return order  # as next_wave would say, but without a look at the whole fleet
        before = order
        model = model or self._store.model(order.model_name)
        goes_on = model is not None and not order.cancelled
        if fleet is None:
            fleet = {node.node_id: node for node in self._store.nodes()}
        standing = self.standing(order, fleet)
        wave = next_wave(order.options.rollout, standing) if goes_on else []
        if wave and model is not None:
            order = self._open_wave(order, model, wave)
        options = order.options
        more = options.follow or len(standing.candidates) > len(wave)
        passing = bool(options.window or options.replaces) and bool(wave or standing.unfinished)
        order = replace(order, watched=goes_on and (more or passing))
        if order != before:
            self._store.save_order(order)
        return order

    def _waits(self, order: Order) -> bool:
        """Whether the task of a node that is not away goes on."""
        now = self._clock()
        for mark in self._store.task_marks(order.task_ids):
            if mark.state not in ENDED:
                node = self._store.node(mark.node_id)
                if node is not None and not self._is_away(node, now):
                    return True
        return False

    def _is_away(self, node: Node, now: datetime) -> bool:
        if self._presence.online(node.node_id):
            return False
        return now - max(node.last_seen_at, self._started_at) >= AWAY

    def _open_wave(self, order: Order, model: Model, wave: Sequence[str]) -> Order:
        running = self._book.running(model.name)
        missing = [node_id for node_id in wave if node_id not in running]
        opened = self._book.open(order.order_id, model, missing, order.priority)
        tasks = {task.node_id: task for task in opened}
        self._evictions.withdraw(model, wave)
        kept = [node_id for node_id in wave if node_id in running]

        def tell() -> None:
            for node_id in kept:  # what it waited for may not concern this order
                self._watchers.publish(Topic.ASSIGNMENT, node_id)

        self._store.after_commit(tell)
        of_wave = [tasks.get(node_id) or running[node_id] for node_id in wave]
        ids = (*order.task_ids, *(task.task_id for task in of_wave))
        return replace(order, task_ids=ids, waves=(*order.waves, tuple(wave)))

    def _remove_replaced(self, order: Order, node_id: str) -> None:
        old = self._store.model(order.options.replaces)
        if old is None or self.wanting(old.name, node_id, order) is not None:
            return
        cancelled = self._book.cancel(self._book.running(old.name, node_id).values())
        if cancelled or self._store.holdings(model_name=old.name, node_id=node_id):
            self._evictions.place(old, node_id)
        self.settled(cancelled)


def _turns(window: Window | None, before: datetime, now: datetime) -> bool:
    return window is not None and window.is_open(before) is not window.is_open(now)


def _in_waves(order: Order) -> bool:
    return order.options.rollout is not None
