"""In which waves an order reaches its nodes. Pure: who is next follows from how others stand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from router.domain.errors import InvalidOptions
from router.domain.tasks import ENDED, TaskState

_MOST = 999_999_999  # nodes; what both edges of the contract can say


@dataclass(frozen=True, slots=True)
class Rollout:
    """First `canary_nodes`, then `wave_percent` of all nodes, or `wave_nodes`, at a time; 0: all.

    With more failed tasks than `max_failures` no further wave begins.
    """

    canary_nodes: int = 0
    wave_percent: int = 0
    wave_nodes: int = 0
    max_failures: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """How an order stands: its `waves` so far, the state of each node's newest task, and the
    `candidates`, nodes that have no task yet, in the order in which their turn comes.

    `away` are nodes of which nothing was heard for a while.
    """

    waves: Sequence[Sequence[str]]
    states: Mapping[str, TaskState]
    candidates: Sequence[str]
    away: frozenset[str] = frozenset()

    @property
    def unfinished(self) -> list[str]:
        """The nodes whose task goes on."""
        return [node for node, state in self.states.items() if state not in ENDED]

    @property
    def awaited(self) -> list[str]:
        """The nodes whose task goes on and that can be waited for: those that are not away."""
        return [node for node in self.unfinished if node not in self.away]

    @property
    def failed(self) -> list[str]:
        """The nodes whose task failed."""
        return [node for node, state in self.states.items() if state is TaskState.FAILED]


def check(rollout: Rollout) -> None:
    """Raises `InvalidOptions` for what makes no waves."""
    numbers = (rollout.canary_nodes, rollout.wave_nodes, rollout.max_failures)
    if min(numbers) < 0 or max(numbers) > _MOST or not 0 <= rollout.wave_percent <= 100:
        raise InvalidOptions(
            f"the numbers of a rollout are 0 to {_MOST}, and its share is 1 to 100 percent",
            param="rollout",
        )
    if rollout.wave_percent and rollout.wave_nodes:
        raise InvalidOptions(
            "the size of a wave is a share or a number of nodes, not both", param="rollout"
        )
    if not (rollout.canary_nodes or rollout.wave_percent or rollout.wave_nodes):
        raise InvalidOptions(
            "max_failures needs waves: say how many nodes go first (canary), or at a time (then)",
            param="rollout",
        )


def stopped(rollout: Rollout | None, standing: Standing) -> bool:
    """Whether too many failed for another wave, although there is one to come."""
    if rollout is None or not standing.candidates:
        return False
    return len(standing.failed) > rollout.max_failures


def next_wave(rollout: Rollout | None, standing: Standing) -> list[str]:
    """The nodes whose turn it is now; [] when there is none, or not yet.

    A wave ends when every task of the ones so far has ended, save on nodes that are away: these
    catch up later. Where all nodes of a wave went away before one ended, it has shown nothing, and
    another of its size takes its place, as soon as a node is there for it. Nodes that are there
    come before those that are away.
    """
    if rollout is None:
        return list(standing.candidates)
    if not standing.candidates or stopped(rollout, standing) or standing.awaited:
        return []
    present = [node for node in standing.candidates if node not in standing.away]
    told = [wave for wave in standing.waves if any(_ended(standing, node) for node in wave)]
    if standing.waves and standing.waves[-1] not in told:
        known = [node for node in standing.waves[-1] if node in standing.states]
        if known and not present:
            return []
    ordered = present or list(standing.candidates)
    return ordered[: _size(rollout, standing, first=not told)]


def _ended(standing: Standing, node: str) -> bool:
    return standing.states.get(node) in ENDED


def _size(rollout: Rollout, standing: Standing, *, first: bool) -> int:
    if first and rollout.canary_nodes:
        return rollout.canary_nodes
    if rollout.wave_percent:
        total = len(standing.states) + len(standing.candidates)
        return -(-total * rollout.wave_percent // 100)
    return rollout.wave_nodes or len(standing.candidates)
