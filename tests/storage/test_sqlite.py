"""The store on a SQLite file: the contract, durability, migrations."""

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from peewee import SqliteDatabase
from playhouse import migrations

from router.domain.orders import OrderOptions
from router.storage.database import Database, UnusableDatabase
from router.storage.store import PeeweeStore
from router.storage.tables import TABLES
from tests.storage.contract import StoreContract, node

MIGRATIONS = Path(__file__).parents[2] / "router/storage/migrations"
_WRITE_AND_WAIT = """
import sys
from router.storage.database import Database
from router.storage.store import PeeweeStore
from tests.storage.contract import node, task

store = PeeweeStore(Database(sys.argv[1]))
for number in range(3):
    with store.transaction():
        store.save_node(node(f"node-{number}"))
        store.add_tasks([task(f"task-{number}")])
    print("acknowledged", number, flush=True)
with store.transaction():
    store.save_node(node("never-acknowledged"))
    print("inside", flush=True)
    sys.stdin.read()
"""


def url(folder: Path) -> str:
    """Of the database file in a folder."""
    return f"sqlite:///{folder / 'router.db'}"


class TestSqlite(StoreContract):
    """The contract on a temporary file."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> PeeweeStore:
        """An empty store."""
        return PeeweeStore(Database(url(tmp_path)))


def test_what_was_acknowledged_survives_a_kill_and_nothing_else_does(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITE_AND_WAIT, url(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == "inside\n":
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()

    store = PeeweeStore(Database(url(tmp_path)))

    assert sorted(store.node_names()) == ["node-0", "node-1", "node-2"]
    assert len(store.tasks()) == 3


def test_a_database_belongs_to_one_process_while_that_lives(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITE_AND_WAIT, url(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()

    with pytest.raises(UnusableDatabase, match=rf"another router \(process {process.pid}\)"):
        Database(url(tmp_path))
    process.send_signal(signal.SIGKILL)
    process.communicate()

    Database(url(tmp_path)).close()


def test_every_write_is_flushed_to_the_disk(tmp_path: Path) -> None:
    database = Database(url(tmp_path))

    def pragma(name: str) -> object:
        return database.connection.execute_sql(f"PRAGMA {name}").fetchone()[0]

    assert (pragma("journal_mode"), pragma("synchronous")) == ("wal", 2)


def test_an_order_of_the_first_version_is_one_that_is_carried_out_at_once(tmp_path: Path) -> None:
    path = tmp_path / "router.db"
    before = SqliteDatabase(str(path))
    migrations.Runner(before, str(MIGRATIONS)).up("0001_initial")
    before.execute_sql(
        "insert into orders values ('order-1', 'm', 'all', '[\"n\"]', '[\"t\"]', null, 1)"
    )
    before.close()

    found = PeeweeStore(Database(url(tmp_path))).order("order-1")

    assert found is not None
    assert (found.node_ids, found.task_ids, found.options) == (("n",), ("t",), OrderOptions())
    assert (found.labels, found.waves, found.cancelled, found.watched) == ({}, (), False, False)


def test_the_migrations_lead_to_the_tables_as_they_are_declared(tmp_path: Path) -> None:
    Database(url(tmp_path)).close()
    declared = SqliteDatabase(str(tmp_path / "declared.db"))
    with declared.bind_ctx(TABLES):
        declared.create_tables(TABLES)
    declared.close()

    migrated = _schema(tmp_path / "router.db")

    assert migrated == _schema(tmp_path / "declared.db")
    assert migrated.keys() >= {"models", "tasks", "nodes", "catalog"}


def test_an_existing_file_is_opened_with_everything_in_it(tmp_path: Path) -> None:
    first = Database(url(tmp_path))
    store = PeeweeStore(first)
    with store.transaction():
        store.save_node(node())
    first.close()

    assert PeeweeStore(Database(url(tmp_path))).nodes() == [node()]


@pytest.mark.parametrize("bad", ["postgresql://host/db", "sqlite://", "sqlite:///", "nonsense", ""])
def test_an_address_of_no_database_is_refused_with_the_right_form(bad: str) -> None:
    with pytest.raises(UnusableDatabase, match="write sqlite:///PATH"):
        Database(bad)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "router.db"
    path.write_bytes(b"this is a letter, not a database" * 100)

    with pytest.raises(UnusableDatabase, match=r"router\.db cannot be used"):
        Database(url(tmp_path))

    assert path.read_bytes().startswith(b"this is a letter")


def _schema(path: Path) -> dict[str, tuple[object, ...]]:
    """Of every table its columns and indexes, without the migrations' own table."""
    connection = sqlite3.connect(path)
    tables = [
        name
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        if not name.startswith("sqlite_") and "migrat" not in name
    ]
    found: dict[str, tuple[object, ...]] = {}
    for table in tables:
        columns = tuple(row[1:] for row in connection.execute(f"PRAGMA table_info({table})"))
        indexes = sorted(
            (
                bool(unique),
                tuple(row[2] for row in connection.execute(f"PRAGMA index_info('{name}')")),
            )
            for _, name, unique, *_ in connection.execute(f"PRAGMA index_list({table})")
        )
        found[table] = (columns, tuple(indexes))
    connection.close()
    return found
