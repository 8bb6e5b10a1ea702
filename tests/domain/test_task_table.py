"""Every pair of state and event, against the rules as the specification words them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from router.domain.errors import WrongState
from router.domain.tasks import (
    EVENT_OF_REPORT,
    VERBS,
    Event,
    Progress,
    Task,
    TaskFailure,
    TaskState,
    advance,
)

THEN = datetime(2026, 1, 1, tzinfo=UTC)
NOW = THEN + timedelta(minutes=1)
PAIRS = [(state, event) for state in TaskState for event in Event]

# What each event makes of each state, told once more and in another form than the product's table:
# by event, then by the letters of the states it works on.
LETTERS = {
    "n": TaskState.PENDING,
    "d": TaskState.DOWNLOADING,
    "v": TaskState.VERIFYING,
    "p": TaskState.PAUSED,
    "c": TaskState.COMPLETED,
    "f": TaskState.FAILED,
    "x": TaskState.CANCELLED,
}
RULES = {
    Event.WAITED: "",
    Event.DOWNLOADED: "n>d v>d",
    Event.VERIFIED: "n>v d>v",
    Event.COMPLETED: "n>c d>c v>c p>c",
    Event.FAILED: "n>f d>f v>f p>f",
    Event.CANCEL: "n>x d>x v>x p>x",
    Event.PAUSE: "n>p d>p v>p",
    Event.RESUME: "p>n",
    Event.RETRY: "f>n x>n",
}


def task(state: TaskState = TaskState.PENDING, attempt: int = 1) -> Task:
    """A task of 100 bytes in this state."""
    return Task(
        task_id="task-1",
        order_id="order-1",
        model_name="hf/o/r/m.gguf",
        node_id="node-1",
        state=state,
        attempt=attempt,
        bytes_total=100,
        priority=0,
        created_at=THEN,
        updated_at=THEN,
    )


def ruled(state: TaskState, event: Event) -> TaskState | None:
    """What the rules say of a pair; None: nothing."""
    moves = dict(rule.split(">") for rule in RULES[event].split())
    return next(
        (LETTERS[after] for before, after in moves.items() if LETTERS[before] is state), None
    )


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_each_event_moves_each_state_as_the_rules_say(state: TaskState, event: Event) -> None:
    before, expected = task(state), ruled(state, event)

    if expected is None and event in VERBS:
        with pytest.raises(WrongState, match=f'task "task-1" is {state}: it cannot be '):
            advance(before, event, NOW)
    elif expected is None:
        assert advance(before, event, NOW) is before
    else:
        assert advance(before, event, NOW).state is expected


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_a_moved_task_tells_when_it_moved_and_when_it_ended(state: TaskState, event: Event) -> None:
    if ruled(state, event) is None:
        return
    after = advance(task(state), event, NOW)

    assert after.updated_at == NOW
    assert after.ended == (after.ended_at == NOW)


def test_only_a_retry_begins_a_new_attempt_and_it_forgets_the_old_one() -> None:
    failed = replace(
        task(TaskState.FAILED, attempt=3),
        started_at=THEN,
        ended_at=THEN,
        failure=TaskFailure("disk", "full", retryable=False),
        progress=Progress(bytes_done=50),
    )

    retried = advance(failed, Event.RETRY, NOW)

    assert (retried.attempt, retried.progress, retried.failure) == (4, Progress(), None)
    assert (retried.started_at, retried.ended_at) == (None, None)


def test_an_attempt_keeps_the_moment_when_it_began() -> None:
    begun = advance(task(), Event.DOWNLOADED, THEN)

    verifying = advance(begun, Event.VERIFIED, NOW)

    assert (begun.started_at, verifying.started_at) == (THEN, THEN)


def test_a_failure_and_kept_bytes_belong_to_the_end_they_came_with() -> None:
    failure = TaskFailure("disk", "full", retryable=False)

    failed = advance(task(), Event.FAILED, NOW, failure=failure, keep_partial=True)
    cancelled = advance(task(), Event.CANCEL, NOW, failure=failure, keep_partial=True)

    assert (failed.failure, failed.keep_partial) == (failure, False)
    assert (cancelled.failure, cancelled.keep_partial) == (None, True)


def test_a_node_cannot_say_what_only_an_operator_may() -> None:
    assert not {EVENT_OF_REPORT[state] for state in EVENT_OF_REPORT} & VERBS
