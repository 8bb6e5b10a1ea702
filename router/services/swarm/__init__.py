"""Nodes of one site share the pieces of the files that they fetch."""

from router.services.swarm.service import Swarms, Warn
from router.services.swarm.words import (
    Counts,
    GrantedPiece,
    Grants,
    Join,
    News,
    Outcome,
    Question,
    WantedFile,
)

__all__ = [
    "Counts",
    "GrantedPiece",
    "Grants",
    "Join",
    "News",
    "Outcome",
    "Question",
    "Swarms",
    "WantedFile",
    "Warn",
]
