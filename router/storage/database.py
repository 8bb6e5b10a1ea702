"""Opens the database, brings it up to date, and runs one write at a time."""

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from peewee import Database as PeeweeDatabase
from peewee import SqliteDatabase
from playhouse import migrations

_MIGRATIONS = Path(__file__).parent / "migrations"


class UnusableDatabase(Exception):
    """The database cannot be opened; the message says what to do."""


class Database:
    """One SQLite file that nothing but this process opens.

    Reads run on a connection of the calling thread. Writes run one at a time in `transaction`,
    and are on the disk (`synchronous=FULL`) when it returns: concurrent writers and checkpoints
    can corrupt the log of older SQLite versions (fixed in 3.51.3), and a serialised writer is
    never told that the database is locked.
    """

    def __init__(self, url: str) -> None:
        """Opens `sqlite:///PATH` and applies the migrations.

        Raises `UnusableDatabase`, also when another process has it open.
        """
        path = _path(url)
        self._held = _hold(path)
        self._peewee = _sqlite(path)
        self._lock = threading.RLock()
        self._depth = 0
        self._writer = 0  # the thread whose transaction is open, while `_depth` is not 0
        self._after_commit: list[Callable[[], None]] = []
        try:
            with self._peewee.connection_context():
                migrations.run(self._peewee, str(_MIGRATIONS))
        except Exception as error:
            os.close(self._held)
            raise UnusableDatabase(f"the database {url} cannot be used: {error}") from error

    @property
    def connection(self) -> PeeweeDatabase:
        """Where a query runs: opens a connection for this thread when it has none."""
        return self._peewee

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, durable on return; may be nested.

        What `after_commit` was given runs before the next writer begins, so that news come in the
        order of the commits.
        """
        with self._lock:
            self._depth += 1
            self._writer = threading.get_ident()
            before = len(self._after_commit)
            try:
                with self._peewee.atomic():
                    yield
            except BaseException:
                self._depth -= 1
                del self._after_commit[before:]  # what is undone is no news
                raise
            self._depth -= 1
            if self._depth == 0:
                callbacks, self._after_commit = self._after_commit, []
                for callback in callbacks:
                    callback()

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Runs `callback` once the present transaction is durable; at once outside of one."""
        if self._depth and self._writer == threading.get_ident():
            self._after_commit.append(callback)
        else:
            callback()

    def close(self) -> None:
        """Closes this thread's connection; those of other threads go with their threads."""
        with self._lock:
            self._peewee.close()
            os.close(self._held)


def _path(url: str) -> Path:
    parts = urlsplit(url)
    path = Path(unquote(parts.path.removeprefix("/") if parts.netloc == "" else ""))
    if parts.scheme != "sqlite" or not path.name:
        raise UnusableDatabase(
            f'"{parts.scheme}:…" is not a database this version can use: '
            "write sqlite:///PATH, with four slashes before an absolute path"
        )
    return path


def _hold(database: Path) -> int:
    """The descriptor of a lock beside the database, this process's until closed or dead."""
    path = database.with_name(f"{database.name}.lock")
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UnusableDatabase(f"the database {database} cannot be used: {error}") from error
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise UnusableDatabase(
            f"the database {database} is in use by another router (process {holder}): "
            "stop that one, or give this one its own --data-dir"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _sqlite(path: Path) -> SqliteDatabase:
    return SqliteDatabase(
        str(path),
        pragmas={
            "journal_mode": "wal",
            "synchronous": "full",
            "foreign_keys": 1,
            "busy_timeout": 5000,
            "cache_size": -2_000,  # KiB for each thread; the kernel caches the file
        },
        lock_type="IMMEDIATE",
    )
