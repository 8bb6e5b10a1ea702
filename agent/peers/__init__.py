"""Serves what this node holds to the other nodes of its fleet."""

from agent.peers.server import PeerServer, ServingLimits
from agent.peers.session import Patience
from agent.peers.sharing import Sharing

__all__ = ["Patience", "PeerServer", "ServingLimits", "Sharing"]
