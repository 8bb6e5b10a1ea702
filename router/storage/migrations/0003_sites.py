"""Limits for the line of a site, and two more for a node."""

from peewee import BigIntegerField, CharField, Database, Model, TextField
from playhouse.migrate import SchemaMigrator


class Sites(Model):
    name = CharField(primary_key=True)
    max_hub_rate = BigIntegerField()
    timetable = TextField()
    time_zone = CharField()

    class Meta:
        table_name = "sites"


COLUMNS = ("set_max_upload_rate", "set_max_hub_rate")


def up(migrator: SchemaMigrator, db: Database) -> None:
    with db.bind_ctx([Sites]):
        db.create_tables([Sites])
    migrator.migrate(
        *(migrator.add_column("nodes", column, BigIntegerField(null=True)) for column in COLUMNS)
    )


def down(migrator: SchemaMigrator, db: Database) -> None:
    migrator.migrate(*(migrator.drop_column("nodes", column) for column in COLUMNS))
    with db.bind_ctx([Sites]):
        db.drop_tables([Sites])
