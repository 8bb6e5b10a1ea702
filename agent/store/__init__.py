"""The node's store: a Hugging Face cache on disk, and what the agent knows about it."""

from agent.store.cache import Claim, Digests, FileState, Found, Store, StoredFile
from agent.store.errors import StoreError
from agent.store.origin import BytesFrom, Origin
from agent.store.partial import Partial

__all__ = [
    "BytesFrom",
    "Claim",
    "Digests",
    "FileState",
    "Found",
    "Origin",
    "Partial",
    "Store",
    "StoreError",
    "StoredFile",
]
