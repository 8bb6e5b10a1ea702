"""The node's store: a Hugging Face cache on disk, and what the agent knows about it."""

from agent.store.cache import Claim, Digests, FileState, Found, Store, StoredFile
from agent.store.errors import StoreError
from agent.store.origin import BytesFrom, Origin
from agent.store.partial import Partial
from agent.store.shelf import Readable, Shelf

__all__ = [
    "BytesFrom",
    "Claim",
    "Digests",
    "FileState",
    "Found",
    "Origin",
    "Partial",
    "Readable",
    "Shelf",
    "Store",
    "StoreError",
    "StoredFile",
]
