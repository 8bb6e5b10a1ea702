"""Desired minus actual, over plain values."""

import dataclasses
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.assignment import Assignment, TaskOrder, is_outdated
from agent.reconcile import Run, RunStatus, Steps, contents, reconcile
from tests.agent.support import manifest

RUNNING, STOPPING, ENDED = RunStatus.RUNNING, RunStatus.STOPPING, RunStatus.ENDED
MODELS = [manifest(f"acme/m{n}", {"m.gguf": bytes([n])}) for n in range(4)]


def order(n: int = 0, *, attempt: int = 1, paused: bool = False, priority: int = 0) -> TaskOrder:
    return TaskOrder(f"t{n}", attempt, MODELS[n], paused, priority)


def run(n: int = 0, status: RunStatus = RUNNING, *, attempt: int = 1) -> dict[str, Run]:
    return {f"t{n}": Run(attempt, MODELS[n], status)}


HELD = dataclasses.replace(order(), hold="waits for 22:00")


@pytest.mark.parametrize(
    ("case", "desired", "runs", "steps"),
    [
        ("nothing wanted, nothing there", [], {}, Steps()),
        ("a new task starts", [order()], {}, Steps(start=(order(),))),
        ("a running task goes on", [order()], run(), Steps()),
        ("a task no longer listed stops", [], run(), Steps(stop=("t0",))),
        ("a stopping task is left alone", [], run(0, STOPPING), Steps()),
        ("an ended task is kept while it is listed", [order()], run(0, ENDED), Steps()),
        ("an ended task is forgotten after that", [], run(0, ENDED), Steps(forget=("t0",))),
        ("a paused task does not start", [order(paused=True)], {}, Steps()),
        ("a paused task stops", [order(paused=True)], run(), Steps(stop=("t0",))),
        ("an ended task stays ended when paused", [order(paused=True)], run(0, ENDED), Steps()),
        ("a task on hold does not start", [HELD], {}, Steps()),
        ("a task on hold stops", [HELD], run(), Steps(stop=("t0",))),
        ("an ended task stays ended on hold", [HELD], run(0, ENDED), Steps()),
        ("a new attempt stops the old one first", [order(attempt=2)], run(), Steps(stop=("t0",))),
        ("and waits for its end", [order(attempt=2)], run(0, STOPPING), Steps()),
        (
            "a new attempt of an ended task starts at once",
            [order(attempt=2)],
            run(0, ENDED),
            Steps(start=(order(attempt=2),), forget=("t0",)),
        ),
        (
            "a task listed twice counts once",
            [order(), order(attempt=2)],
            {},
            Steps(start=(order(),)),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_steps(case: str, desired: list[TaskOrder], runs: dict[str, Run], steps: Steps) -> None:
    assert reconcile(desired, runs, 2) == steps


def test_tasks_start_by_priority_then_as_listed_while_there_is_room() -> None:
    desired = [order(0), order(1), order(2, priority=5), order(3)]

    steps = reconcile(desired, {}, 2)

    assert [started.task_id for started in steps.start] == ["t2", "t0"]


def test_a_stopping_transfer_still_takes_its_place() -> None:
    steps = reconcile([order(1)], run(0, STOPPING), 1)

    assert steps == Steps()


def test_a_running_transfer_is_not_put_aside_for_a_more_urgent_one() -> None:
    steps = reconcile([order(0), order(1, priority=9)], run(0), 1)

    assert steps == Steps()


def test_two_tasks_that_share_a_file_never_run_at_once() -> None:
    shared = b"projector"
    one = TaskOrder("a", 1, manifest("acme/one", {"one.gguf": b"1", "mmproj.gguf": shared}))
    two = TaskOrder("b", 1, manifest("acme/two", {"two.gguf": b"2", "mmproj.gguf": shared}))
    other = TaskOrder("c", 1, manifest("acme/other", {"other.gguf": b"3"}))

    steps = reconcile([one, two, other], {}, 3)

    assert [started.task_id for started in steps.start] == ["a", "c"]


def test_files_without_a_digest_are_the_same_only_at_the_same_place() -> None:
    first = manifest(files={"config.json": b"{}"}, known_digests=False)
    elsewhere = manifest("acme/other", files={"config.json": b"{}"}, known_digests=False)

    assert contents(first) == contents(dataclasses.replace(first, model_name="another"))
    assert contents(first).isdisjoint(contents(elsewhere))


def test_a_smaller_revision_of_the_same_router_is_outdated_and_an_equal_one_is_not() -> None:
    current = Assignment(epoch=3, revision=7)

    assert is_outdated(Assignment(epoch=3, revision=6), current)
    assert not is_outdated(Assignment(epoch=3, revision=7), current)


def test_revisions_of_another_start_of_the_router_do_not_compare() -> None:
    assert not is_outdated(Assignment(epoch=4, revision=1), Assignment(epoch=3, revision=7))


@dataclass
class World:
    """A node without disk or network: what `reconcile` says, happens."""

    max_concurrent: int
    assignment: Assignment = field(default_factory=Assignment)
    runs: dict[str, Run] = field(default_factory=dict)

    def take_in(self, assignment: Assignment) -> None:
        if not is_outdated(assignment, self.assignment):
            self.assignment = assignment
        self.step()

    def step(self) -> None:
        steps = reconcile(self.assignment.tasks, self.runs, self.max_concurrent)
        for task_id in steps.forget:
            assert self.runs.pop(task_id).status is ENDED
        for task_id in steps.stop:
            assert self.runs[task_id].status is RUNNING
            self.set(task_id, STOPPING)
        for started in steps.start:
            assert started.task_id not in self.runs
            self.runs[started.task_id] = Run(started.attempt, started.manifest, RUNNING)
        self.check()

    def advance(self, task_id: str) -> None:
        """The transfer of a task ends, in whatever way it is about to."""
        status = self.runs[task_id].status if task_id in self.runs else ENDED
        if status is RUNNING:
            self.set(task_id, ENDED)
        elif status is STOPPING:
            del self.runs[task_id]
        self.step()

    def set(self, task_id: str, status: RunStatus) -> None:
        self.runs[task_id] = dataclasses.replace(self.runs[task_id], status=status)

    def alive(self) -> list[str]:
        return [task_id for task_id, run in self.runs.items() if run.status is not ENDED]

    def check(self) -> None:
        alive = self.alive()
        written: list[tuple[str, ...]] = []
        for task_id in alive:
            written.extend(contents(self.runs[task_id].manifest))
        assert len(alive) <= self.max_concurrent
        assert len(written) == len(set(written))


# Models of one or two files, out of so few that they often share one.
SHARING = [
    manifest(files={"a.gguf": a, **({} if b is None else {"b.gguf": b})})
    for a in (b"1", b"2", b"3")
    for b in (None, b"1", b"2", b"3")
    if a != b
]


def orders() -> st.SearchStrategy[TaskOrder]:
    return st.builds(
        TaskOrder,
        task_id=st.sampled_from(["t1", "t2", "t3", "t4"]),
        attempt=st.integers(1, 3),
        manifest=st.sampled_from(SHARING),
        paused=st.booleans(),
        priority=st.integers(0, 2),
    )


def task_lists() -> st.SearchStrategy[list[TaskOrder]]:
    return st.lists(orders(), max_size=4, unique_by=lambda order: order.task_id)


@settings(max_examples=100, deadline=None)
@given(
    lists=st.lists(task_lists(), min_size=1, max_size=6),
    max_concurrent=st.integers(1, 3),
    data=st.data(),
)
def test_whatever_is_lost_doubled_or_late_the_newest_assignment_is_reached(
    lists: list[list[TaskOrder]], max_concurrent: int, data: st.DataObject
) -> None:
    sent = [Assignment(1, n, tuple(tasks)) for n, tasks in enumerate(lists, start=1)]
    arriving = data.draw(st.lists(st.sampled_from(sent), max_size=12))
    world = World(max_concurrent)

    for assignment in [*arriving, sent[-1], *data.draw(st.lists(st.sampled_from(sent)))]:
        world.take_in(assignment)
        if data.draw(st.booleans()) and world.runs:
            world.advance(data.draw(st.sampled_from(sorted(world.runs))))
    for _ in range(20):
        for task_id in world.alive():
            world.advance(task_id)

    reached = {task_id: (run.attempt, run.status) for task_id, run in world.runs.items()}
    to_do = {o.task_id: (o.attempt, ENDED) for o in sent[-1].tasks if not o.paused}
    paused = {o.task_id: (o.attempt, ENDED) for o in sent[-1].tasks if o.paused}
    assert to_do.items() <= reached.items()
    assert reached.items() <= to_do.items() | paused.items()
