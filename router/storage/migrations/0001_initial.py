"""The first tables."""

from peewee import (
    BigIntegerField,
    BlobField,
    BooleanField,
    CharField,
    CompositeKey,
    Database,
    IntegerField,
    Model,
    TextField,
)
from playhouse.migrate import SchemaMigrator


class Settings(Model):
    name = CharField(primary_key=True)
    number = BigIntegerField()

    class Meta:
        table_name = "settings"


class Models(Model):
    name = CharField(primary_key=True, max_length=1300)
    display_name = TextField()
    status = CharField()
    repo = CharField(index=True)
    manifest = TextField()
    required_memory_bytes = BigIntegerField(null=True)
    chat_template = TextField(null=True)
    facts = TextField(null=True)
    created_at = BigIntegerField()

    class Meta:
        table_name = "models"


class Orders(Model):
    order_id = CharField(primary_key=True)
    model_name = CharField(max_length=1300)
    target = CharField()
    node_ids = TextField()
    task_ids = TextField()
    request_id = CharField(null=True, unique=True)
    created_at = BigIntegerField()

    class Meta:
        table_name = "orders"


class Tasks(Model):
    task_id = CharField(primary_key=True)
    order_id = CharField(index=True)
    model_name = CharField(max_length=1300)
    node_id = CharField()
    state = CharField(index=True)
    attempt = IntegerField()
    bytes_total = BigIntegerField()
    priority = IntegerField()
    created_at = BigIntegerField()
    updated_at = BigIntegerField()
    started_at = BigIntegerField(null=True)
    ended_at = BigIntegerField(null=True)
    failure = TextField(null=True)
    keep_partial = BooleanField()
    progress = TextField()

    class Meta:
        table_name = "tasks"
        indexes = (
            (("node_id", "state"), False),
            (("model_name", "node_id", "task_id"), False),
        )


class Nodes(Model):
    node_id = CharField(primary_key=True)
    name = CharField(index=True)
    version = CharField()
    labels = TextField()
    memory_bytes = BigIntegerField()
    gpus = TextField()
    disk_free_bytes = BigIntegerField()
    disk_total_bytes = BigIntegerField()
    settings = TextField()
    created_at = BigIntegerField()
    last_seen_at = BigIntegerField()
    set_labels = TextField()
    set_max_rate = BigIntegerField(null=True)

    class Meta:
        table_name = "nodes"


class Holdings(Model):
    model_name = CharField(max_length=1300)
    node_id = CharField(index=True)
    verified_at = BigIntegerField(null=True)

    class Meta:
        table_name = "holdings"
        primary_key = CompositeKey("model_name", "node_id")


class Evictions(Model):
    eviction_id = CharField(primary_key=True)
    node_id = CharField(index=True)
    manifest = TextField()
    created_at = BigIntegerField()

    class Meta:
        table_name = "evictions"


class Catalog(Model):
    kind = CharField()
    key = CharField(max_length=1300)
    body = BlobField()
    size_bytes = IntegerField()
    fetched_at = BigIntegerField()
    used_at = BigIntegerField(index=True)

    class Meta:
        table_name = "catalog"
        primary_key = CompositeKey("kind", "key")


TABLES = [Settings, Models, Orders, Tasks, Nodes, Holdings, Evictions, Catalog]


def up(migrator: SchemaMigrator, db: Database) -> None:
    with db.bind_ctx(TABLES):
        db.create_tables(TABLES)


def down(migrator: SchemaMigrator, db: Database) -> None:
    with db.bind_ctx(TABLES):
        db.drop_tables(TABLES)
