"""Whose turn it is in a rollout."""

from collections.abc import Sequence

import pytest

from router.domain.errors import InvalidOptions
from router.domain.rollouts import Rollout, Standing, check, next_wave, stopped
from router.domain.tasks import TaskState

DONE, RUNS, FAILED = TaskState.COMPLETED, TaskState.DOWNLOADING, TaskState.FAILED
CAREFUL = Rollout(canary_nodes=1, wave_percent=25, max_failures=1)


def standing(
    *waves: dict[str, TaskState], waiting: Sequence[str] = (), away: Sequence[str] = ()
) -> Standing:
    """The waves so far with the state of each node."""
    states = {node: state for wave in waves for node, state in wave.items()}
    return Standing([list(wave) for wave in waves], states, list(waiting), frozenset(away))


@pytest.mark.parametrize(
    ("case", "now", "wave"),
    [
        ("the canary first", standing(waiting="abcdefgh"), "a"),
        ("nobody while it runs", standing({"a": RUNS}, waiting="bcdefgh"), ""),
        ("then a share of all", standing({"a": DONE}, waiting="bcdefgh"), "bc"),
        ("a failure that is allowed", standing({"a": FAILED}, waiting="bcdefgh"), "bc"),
        ("one too many", standing({"a": FAILED}, {"b": FAILED, "c": DONE}, waiting="defgh"), ""),
        ("the rest is a smaller wave", standing({"a": DONE}, {"b": DONE}, waiting="c"), "c"),
        ("nobody is left", standing({"a": DONE}), ""),
        (
            "no wave waits for who went away",
            standing({"a": DONE}, {"b": DONE, "c": RUNS}, waiting="defgh", away="c"),
            "de",
        ),
        (
            "but for who is there",
            standing({"a": DONE}, {"b": RUNS, "c": RUNS}, waiting="defgh", away="c"),
            "",
        ),
        (
            "a canary that went away has shown nothing: another takes its place",
            standing({"a": RUNS}, waiting="bcdefgh", away="a"),
            "b",
        ),
        (
            "a wave that went away, too",
            standing({"a": DONE}, {"b": RUNS, "c": RUNS}, waiting="defgh", away="bc"),
            "de",
        ),
        ("nobody takes its place who is away", standing({"a": RUNS}, waiting="b", away="ab"), ""),
        ("who is there comes first", standing(waiting="abcdefgh", away="ab"), "c"),
        ("an offline fleet begins with its canary", standing(waiting="ab", away="ab"), "a"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_the_next_wave(case: str, now: Standing, wave: str) -> None:
    assert next_wave(CAREFUL, now) == list(wave)


def test_without_a_rollout_everybody_is_next() -> None:
    assert next_wave(None, standing({"a": RUNS}, waiting="bc", away="b")) == ["b", "c"]


def test_a_wave_may_be_a_number_of_nodes_or_all_the_rest() -> None:
    after_the_canary = standing({"a": DONE}, waiting="bcdefgh")

    assert next_wave(Rollout(canary_nodes=1, wave_nodes=3), after_the_canary) == list("bcd")
    assert next_wave(Rollout(canary_nodes=1), after_the_canary) == list("bcdefgh")


def test_a_share_is_rounded_up() -> None:
    assert len(next_wave(Rollout(wave_percent=1), standing(waiting="abcdefgh"))) == 1
    assert len(next_wave(Rollout(wave_percent=50), standing(waiting="abc"))) == 2


def test_it_has_stopped_only_while_somebody_is_left() -> None:
    assert stopped(CAREFUL, standing({"a": FAILED, "b": FAILED}, waiting="c"))
    assert not stopped(CAREFUL, standing({"a": FAILED, "b": FAILED}))
    assert not stopped(None, standing({"a": FAILED, "b": FAILED}, waiting="c"))


@pytest.mark.parametrize(
    "rollout",
    [
        Rollout(canary_nodes=-1),
        Rollout(wave_percent=101),
        Rollout(wave_percent=-1),
        Rollout(wave_nodes=-5),
        Rollout(canary_nodes=1, max_failures=-1),
        Rollout(wave_percent=10, wave_nodes=3),
        Rollout(max_failures=2),
        Rollout(),
    ],
    ids=str,
)
def test_what_makes_no_waves_is_refused(rollout: Rollout) -> None:
    with pytest.raises(InvalidOptions):
        check(rollout)
