"""Small files that are there whole, or not at all, whenever the power goes."""

import os
from pathlib import Path


def write_durably(path: Path, content: bytes) -> None:
    """Replaces a file in one step; when this returns, the new content survives a power loss.

    Only this user may read it. Raises `OSError`; the old content is then still there.
    """
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
