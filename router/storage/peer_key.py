"""The secret that the nodes of a fleet sign their requests to one another with."""

import os
import secrets
from pathlib import Path

_NAME = "peer.key"
_BYTES = 32


def peer_key(folder: Path) -> bytes:
    """The fleet's 32 bytes from the router's data folder, made there when they are not.

    Of a file that holds anything else nothing can be used, so it is replaced: nodes learn the new
    secret when they connect, as they do after every start. Only the router's user may read it.
    Raises `OSError`.
    """
    path = folder / _NAME
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = b""
    if len(key) == _BYTES:
        path.chmod(0o600)
        return key
    key = secrets.token_bytes(_BYTES)
    part = path.with_name(f"{_NAME}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return key
