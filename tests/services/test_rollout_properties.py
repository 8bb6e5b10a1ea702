"""Whatever happens to the tasks of a rollout, and in whatever order nodes come and go."""

import contextlib
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.domain.errors import WrongState
from router.domain.orders import OrderOptions, OrderState, OrderTarget, OrderView
from router.domain.rollouts import Rollout
from router.domain.tasks import ENDED, TaskFailure, TaskState
from router.services.rollouts import AWAY
from tests.services.world import World

MODEL = "hf/o/r/m-Q4_K_M.gguf"
NODES = [f"n{number}" for number in range(8)]
BROKEN = TaskFailure("disk_error", "it is broken", False)

ROLLOUTS = st.builds(
    Rollout,
    canary_nodes=st.integers(0, 2),
    wave_nodes=st.integers(1, 3),
    max_failures=st.integers(0, 2),
)
DEEDS = st.lists(
    st.tuples(
        st.sampled_from(["complete", "fail", "retry", "cancel", "join", "leave", "wait", "crash"]),
        st.integers(0, len(NODES) - 1),
    ),
    max_size=25,
)


class Story:
    """A fleet, one order in waves that follows or not, and what was seen of it."""

    def __init__(self, folder: Path, rollout: Rollout, *, follow: bool) -> None:
        self.world = World(folder)
        self.world.register()
        self.sessions = {name: self.world.connect(name) for name in NODES[:4]}
        self.rollout = rollout
        options = OrderOptions(follow=follow, rollout=rollout)
        self.order_id = self.world.orders.start(
            MODEL, OrderTarget.ALL, options=options
        ).order.order_id
        self.known = {view.task.task_id for view in self.view().tasks}

    def view(self) -> OrderView:
        return self.world.orders.order(self.order_id)

    def do(self, deed: str, name: str) -> None:
        """One thing happens; what cannot be, does not."""
        world = self.world
        task = next((v.task for v in self.view().tasks if v.task.node_id == name), None)
        session = self.sessions.get(name)
        if deed == "join" and session is None:
            self.sessions[name] = world.connect(name)
        elif deed == "leave" and session is not None:
            world.sessions.close(self.sessions.pop(name))
        elif deed == "wait":
            world.clock.pass_by(AWAY.total_seconds())
            world.rollouts.look_at_the_time()
        elif deed == "crash":
            world.restart()
            self.sessions = {name: world.connect(name) for name in self.sessions}
        elif deed in ("complete", "fail") and session is not None and task is not None:
            state = TaskState.COMPLETED if deed == "complete" else TaskState.FAILED
            failure = BROKEN if deed == "fail" else None
            world.report(session, task.task_id, state, attempt=task.attempt, failure=failure)
        elif deed in ("retry", "cancel") and task is not None:
            with contextlib.suppress(WrongState):
                getattr(world.downloads, deed)(task.task_id)
        world.clock.pass_by(0.01)

    def check(self, before: OrderView) -> None:
        """What must be true after each thing that happens."""
        after = self.view()
        tasks = self.world.downloads.tasks().items
        assert len({view.task.node_id for view in tasks}) == len(tasks), "two tasks for a node"
        waves = after.order.waves
        for wave in waves:
            assert len(wave) <= max(self.rollout.canary_nodes, self.rollout.wave_nodes)
        if self.rollout.canary_nodes:
            assert len(waves[0]) <= self.rollout.canary_nodes
        assert sorted(node for wave in waves for node in wave) == sorted(
            view.task.node_id for view in after.tasks
        )
        failed = sum(view.task.state is TaskState.FAILED for view in after.tasks)
        stopped = after.state is OrderState.STOPPED
        assert stopped == (failed > self.rollout.max_failures and bool(after.waiting))
        if len(waves) > len(before.order.waves):  # a wave has begun
            assert len(waves) == len(before.order.waves) + 1, "two waves at once"
            new = set(waves[-1])
            online = self.sessions.keys()
            for view in after.tasks:
                waits = view.task.node_id in new or view.task.node_id not in online
                assert view.task.state in ENDED or waits, "a wave that overtakes"


@settings(
    max_examples=40, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(ROLLOUTS, st.booleans(), DEEDS)
def test_waves_keep_their_size_and_their_turn_and_no_node_gets_two_tasks(
    rollout: Rollout, follow: bool, deeds: list[tuple[str, int]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        story = Story(Path(folder), rollout, follow=follow)
        for deed, number in deeds:
            before = story.view()
            story.do(deed, NODES[number])
            story.check(before)
        story.world.database.close()
