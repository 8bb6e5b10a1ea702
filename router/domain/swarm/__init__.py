"""The swarm's scheduler: pure, so that it can be simulated with thousands of nodes."""

from router.domain.swarm.fleet import Fleet
from router.domain.swarm.swarm import Swarm
from router.domain.swarm.values import HUB, Accusation, Grant, Result, Settings, Wanted

__all__ = ["HUB", "Accusation", "Fleet", "Grant", "Result", "Settings", "Swarm", "Wanted"]
