"""Orders: what is wished, what of it is reached, what is missing and why."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from router.domain import rollouts, windows
from router.domain.errors import (
    InsufficientDisk,
    InvalidArgument,
    InvalidOptions,
    OrderNotFound,
    PlanOutdated,
    RequestReused,
    WrongState,
)
from router.domain.models import Model
from router.domain.nodes import Node
from router.domain.orders import (
    Order,
    OrderOptions,
    OrderState,
    OrderTarget,
    OrderView,
    WaitingNode,
)
from router.domain.ports import Clock, Store
from router.domain.rollouts import Standing
from router.domain.tasks import Task, TaskState
from router.services import paging
from router.services.downloads import Downloads
from router.services.ids import new_id
from router.services.models import Models
from router.services.nodes import Nodes
from router.services.plans import Plans
from router.services.rollouts import Rollouts
from router.services.task_book import TaskBook

_MAX_REQUEST_ID = 128
_MAX_PRIORITY = 1000
_NAMED = 5  # nodes that a sentence lists
_AS_IT_IS = OrderOptions()
_NO_LABELS: Mapping[str, str] = {}


class Orders:
    """Makes, shows and cancels orders. What a call confirmed survives any crash."""

    def __init__(
        self,
        store: Store,
        models: Models,
        nodes: Nodes,
        plans: Plans,
        downloads: Downloads,
        rollouts: Rollouts,
        book: TaskBook,
        clock: Clock,
    ) -> None:
        """Keeps orders in `store`, and has them carried out by `rollouts`."""
        self._store = store
        self._models = models
        self._nodes = nodes
        self._plans = plans
        self._downloads = downloads
        self._rollouts = rollouts
        self._book = book
        self._clock = clock

    def start(
        self,
        reference: str,
        target: OrderTarget,
        node_ids: Sequence[str] = (),
        labels: Mapping[str, str] = _NO_LABELS,
        options: OrderOptions = _AS_IT_IS,
        *,
        request_id: str = "",
        priority: int = 0,
        plan_id: str = "",
    ) -> OrderView:
        """Orders a model onto nodes; one task for each, an unfinished one is kept.

        The same `request_id` with the same wish returns the order that it made. Raises what
        `Plans.plan` raises, `InvalidOptions`, `RequestReused`, `PlanOutdated` when the plan with
        `plan_id` is no longer what would happen, and `InsufficientDisk` when every node lacks the
        space.
        """
        _check_bounds(request_id, priority)
        _check_options(target, options)
        with self._store.transaction():
            made = self._store.order_of_request(request_id) if request_id else None
            if made is not None:
                wish = replace(
                    made, target=target, labels=dict(labels), options=options, priority=priority
                )
                self._refuse_other_wish(made, wish, reference, node_ids)
                return self._view(made)
            model = self._plans.orderable(reference)
            options = self._with_replaced(model, options)
            nodes = self._plans.targets(target, node_ids, labels, follow=options.follow)
            self._refuse_outdated(plan_id, model, nodes)
            self._refuse_full(model, nodes)
            now = self._clock()
            order = Order(
                order_id=new_id("order", now),
                model_name=model.name,
                target=target,
                node_ids=tuple(node.node_id for node in nodes),
                task_ids=(),
                request_id=request_id,
                created_at=now,
                labels=dict(labels),
                options=options,
                priority=priority,
            )
            return self._view(self._rollouts.begin(order, model, nodes))

    def order(self, order_id: str) -> OrderView:
        """The order as it is now. Raises `OrderNotFound`."""
        return self._view(self._stored(order_id))

    def orders(self, size: int, token: str) -> paging.Page[OrderView]:
        """Orders as they are now, the newest first."""

        def fetch(before: str, limit: int) -> list[OrderView]:
            orders = self._store.orders(before=before, limit=limit)
            fleet = self._fleet() if any(order.watched for order in orders) else {}
            return [self._view(order, fleet) for order in orders]

        return paging.page(size, token, fetch, lambda view: view.order.order_id)

    def cancel(self, order_id: str) -> OrderView:
        """Opens no more tasks, and cancels every unfinished one.

        Raises `OrderNotFound`, and `WrongState` when nothing is left to cancel.
        """
        with self._store.transaction():
            order = self._stored(order_id)
            tasks = [task for task in self._store.tasks_by_id(order.task_ids) if not task.ended]
            if not tasks and not order.watched:
                raise WrongState(
                    f'order "{order_id}" has no unfinished task: there is nothing to cancel',
                    param="order_id",
                )
            order = self._rollouts.cancel(order)
            self._rollouts.settled(self._book.cancel(tasks))
        return self._view(order)

    def _stored(self, order_id: str) -> Order:
        order = self._store.order(order_id)
        if order is None:
            raise OrderNotFound(f'order "{order_id}" does not exist', param="order_id")
        return order

    # What is refused

    def _with_replaced(self, model: Model, options: OrderOptions) -> OrderOptions:
        if not options.replaces:
            return options
        old = self._models.resolve(options.replaces)
        if old.name == model.name:
            raise InvalidOptions(
                f'model "{model.name}" cannot replace itself: name the one that is to go',
                param="replaces",
            )
        return replace(options, replaces=old.name)

    def _refuse_other_wish(
        self, made: Order, wish: Order, reference: str, node_ids: Sequence[str]
    ) -> None:
        old, new = made.options.replaces, wish.options.replaces
        same = (
            wish.target is made.target
            and wish.labels == made.labels
            and wish.priority == made.priority
            and replace(wish.options, replaces=old) == made.options
            and bool(old) == bool(new)
            and self._models.same(reference, made.model_name)
            and (not new or self._models.same(new, old))
        )
        if same and made.target is OrderTarget.SPECIFIC:
            same = {self._nodes.resolve(node).node_id for node in node_ids} == set(made.node_ids)
        if not same:
            raise RequestReused(
                f'request id "{made.request_id}" was used for another order, '
                f'"{made.order_id}": choose a new one',
                param="request_id",
            )

    def _refuse_outdated(self, plan_id: str, model: Model, nodes: Sequence[Node]) -> None:
        if plan_id and self._plans.of(model, nodes).plan_id != plan_id:
            raise PlanOutdated(
                f'the order would do something else by now than "{plan_id[:100]}": '
                "other files, nodes, verdicts or bytes; make a new plan and confirm that",
                param="plan_id",
            )

    def _refuse_full(self, model: Model, nodes: Sequence[Node]) -> None:
        refused = self._plans.refusals(model, nodes)
        if refused:
            reasons = "; ".join(f"{plan.node_name}: {plan.reason}" for plan in refused[:_NAMED])
            raise InsufficientDisk(
                f'no named node has the space for "{model.name}": {reasons}', param="node_ids"
            )

    # What is shown

    def _fleet(self) -> dict[str, Node]:
        return {node.node_id: node for node in self._store.nodes()}

    def _view(self, order: Order, fleet: Mapping[str, Node] | None = None) -> OrderView:
        if fleet is None:
            fleet = self._fleet() if order.watched else {}
        tasks = {task.node_id: task for task in self._store.tasks_by_id(order.task_ids)}
        standing = self._rollouts.standing(order, fleet)
        state = _state(order, standing)
        why = self._why_waiting(order, standing, state)
        return OrderView(
            order,
            tuple(self._downloads.view(task) for task in tasks.values()),
            state,
            tuple(
                WaitingNode(node_id, self._nodes.name(node_id), why)
                for node_id in standing.candidates
            ),
            "; ".join(self._notes(order, standing, state, tasks.values())),
        )

    def _why_waiting(self, order: Order, standing: Standing, state: OrderState) -> str:
        if state is OrderState.STOPPED:
            return "the order has stopped: no further wave begins"
        awaited = len(standing.awaited)
        if awaited:
            return f"its wave begins when {_count(awaited, 'task')} {_has(awaited)} ended"
        return "its wave begins when a node of the present one is back"

    def _notes(
        self, order: Order, standing: Standing, state: OrderState, tasks: Iterable[Task]
    ) -> Iterable[str]:
        options = order.options
        if state is OrderState.STOPPED and options.rollout is not None:
            failed = standing.failed
            yield (
                f"stopped: {self._named(failed)} failed, more than the "
                f"{options.rollout.max_failures} allowed; retry a failed task, or cancel the order"
            )
        late = [node for node in standing.unfinished if node in standing.away]
        if state is OrderState.ACTIVE and late and options.rollout is not None:
            if standing.candidates and not standing.awaited:
                yield f"waits for a node of its present wave: {self._named(late)} offline"
            else:
                yield f"no wave waits for {self._named(late)}: offline, to catch up when back"
        window = options.window
        if window is not None and state is OrderState.ACTIVE and not window.is_open(self._clock()):
            yield f"waits for its window, {window.text}"
        if options.follow and not order.cancelled and not (standing.states or standing.candidates):
            wanted = ", ".join(f"{key}={value}" for key, value in sorted(order.labels.items()))
            yield f"waits for a node{' with ' + wanted if wanted else ''} to join"
        if order.excluded:
            yield f"left alone, since the model was evicted there: {self._named(order.excluded)}"
        if options.replaces:
            yield from self._staying(order, tasks)

    def _staying(self, order: Order, tasks: Iterable[Task]) -> Iterable[str]:
        """Why the model that was to go is still there."""
        held = {
            node_id for _, node_id, _ in self._store.holdings(model_name=order.options.replaces)
        }
        for task in tasks:
            if task.state is TaskState.COMPLETED and task.node_id in held:
                other = self._rollouts.wanting(order.options.replaces, task.node_id, order)
                if other is not None:
                    name = self._nodes.name(task.node_id)
                    yield (
                        f'"{order.options.replaces}" stays on {name}: '
                        f"order {other.order_id} wants it there"
                    )

    def _named(self, node_ids: Sequence[str]) -> str:
        some = ", ".join(self._nodes.name(node_id) for node_id in node_ids[:_NAMED])
        more = len(node_ids) - _NAMED
        return some + (f" and {more} more" if more > 0 else "")


def _state(order: Order, standing: Standing) -> OrderState:
    if order.cancelled:
        return OrderState.CANCELLED
    if rollouts.stopped(order.options.rollout, standing):
        return OrderState.STOPPED
    if standing.unfinished or standing.candidates:
        return OrderState.ACTIVE
    if order.options.follow and not standing.states:
        return OrderState.ACTIVE
    completed = all(state is TaskState.COMPLETED for state in standing.states.values())
    return OrderState.COMPLETED if completed else OrderState.FAILED


def _check_bounds(request_id: str, priority: int) -> None:
    if len(request_id) > _MAX_REQUEST_ID:
        raise InvalidArgument(
            f"a request id has at most {_MAX_REQUEST_ID} characters", param="request_id"
        )
    if abs(priority) > _MAX_PRIORITY:
        raise InvalidArgument(
            f"a priority lies between -{_MAX_PRIORITY} and {_MAX_PRIORITY}", param="priority"
        )


def _check_options(target: OrderTarget, options: OrderOptions) -> None:
    if options.follow and target is OrderTarget.SPECIFIC:
        raise InvalidOptions(
            "an order for named nodes has none to follow: order for all nodes, or by labels",
            param="follow",
        )
    if options.rollout is not None:
        rollouts.check(options.rollout)
    if options.window is not None:
        windows.check(options.window)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _has(number: int) -> str:
    return "has" if number == 1 else "have"
