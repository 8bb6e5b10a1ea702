"""What an order wishes beside a model and its nodes, and how far its waves are."""

from peewee import BooleanField, Database, IntegerField, TextField
from playhouse.migrate import SchemaMigrator

COLUMNS = {
    "labels": TextField(default="{}"),
    "options": TextField(default="{}"),
    "priority": IntegerField(default=0),
    "waves": TextField(default="[]"),
    "excluded": TextField(default="[]"),
    "cancelled": BooleanField(default=False),
    "watched": BooleanField(default=False, index=True),
}


def up(migrator: SchemaMigrator, db: Database) -> None:
    migrator.migrate(
        *(migrator.add_column("orders", name, field) for name, field in COLUMNS.items())
    )


def down(migrator: SchemaMigrator, db: Database) -> None:
    migrator.migrate(*(migrator.drop_column("orders", name) for name in COLUMNS))
