"""Who this node is: an id made once, kept in a data folder that one agent at a time may use."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.durable import write_durably
from protos import names

ID_FILE = "node-id"
LOCK_FILE = "lock"


class DataFolderInUse(Exception):
    """Another agent works with this data folder."""


class DamagedIdentity(Exception):
    """The file with the node's id holds something else."""


@contextmanager
def data_folder(path: Path) -> Iterator[Path]:
    """Makes the folder where needed and holds it for this process alone while entered.

    The lock ends with the process, however it dies. Raises `DataFolderInUse`, `OSError`.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataFolderInUse(
                f"another agent is using {path}: stop it, or give this one its own --data-dir"
            ) from error
        yield path
    finally:
        os.close(lock)


def node_id(folder: Path) -> str:
    """The id of this node, made and flushed at the first call. Raises `DamagedIdentity`, `OSError`.

    A damaged file is not replaced: a new id would make this a new node, and leave its tasks with
    the old one.
    """
    path = folder / ID_FILE
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        made = f"node-{secrets.token_hex(8)}"
        write_durably(path, f"{made}\n".encode())
        return made
    except UnicodeDecodeError as error:
        raise DamagedIdentity(f"{path} does not hold a node id") from error
    try:
        return names.node_id(text)
    except names.InvalidName as error:
        raise DamagedIdentity(
            f"{path} does not hold a node id ({error}); restore it, or remove it to make this a "
            "new node"
        ) from error
