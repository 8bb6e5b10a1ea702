"""How this node shares files: pieces by the router's grants, from other nodes and the Hub."""

from agent.swarm.desk import SwarmDesk
from agent.swarm.values import Patience

__all__ = ["Patience", "SwarmDesk"]
