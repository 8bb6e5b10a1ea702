"""The tables. A change here comes with a migration beside the others."""

from peewee import (
    BigIntegerField,
    BlobField,
    BooleanField,
    CharField,
    CompositeKey,
    IntegerField,
    Model,
    TextField,
)

from router.storage.fields import DocumentField, MomentField


class Table(Model):
    """The base of all tables; bound to no database: each query is told where to run."""


class SettingRow(Table):
    """A single value of the router itself."""

    name = CharField(primary_key=True)
    number = BigIntegerField()

    class Meta:
        """Naming."""

        table_name = "settings"


class ModelRow(Table):
    """A supported model with its manifest."""

    name = CharField(primary_key=True, max_length=1300)
    display_name = TextField()
    status = CharField()
    repo = CharField(index=True)
    manifest = DocumentField()
    required_memory_bytes = BigIntegerField(null=True)
    chat_template = TextField(null=True)
    facts = DocumentField(null=True)
    created_at = MomentField()

    class Meta:
        """Naming."""

        table_name = "models"


class OrderRow(Table):
    """An operator's wish."""

    order_id = CharField(primary_key=True)
    model_name = CharField(max_length=1300)
    target = CharField()
    node_ids = DocumentField()
    task_ids = DocumentField()
    request_id = CharField(null=True, unique=True)
    created_at = MomentField()
    labels = DocumentField()
    options = DocumentField()
    priority = IntegerField()
    waves = DocumentField()
    excluded = DocumentField()
    cancelled = BooleanField()
    watched = BooleanField(index=True)

    class Meta:
        """Naming."""

        table_name = "orders"


class TaskRow(Table):
    """One model on one node; `progress` as of the last change of state."""

    task_id = CharField(primary_key=True)
    order_id = CharField(index=True)
    model_name = CharField(max_length=1300)
    node_id = CharField()
    state = CharField(index=True)
    attempt = IntegerField()
    bytes_total = BigIntegerField()
    priority = IntegerField()
    created_at = MomentField()
    updated_at = MomentField()
    started_at = MomentField(null=True)
    ended_at = MomentField(null=True)
    failure = DocumentField(null=True)
    keep_partial = BooleanField()
    progress = DocumentField()

    class Meta:
        """Naming and indexes."""

        table_name = "tasks"
        indexes = (
            (("node_id", "state"), False),
            (("model_name", "node_id", "task_id"), False),
        )


class NodeRow(Table):
    """A machine, as it described itself last."""

    node_id = CharField(primary_key=True)
    name = CharField(index=True)
    version = CharField()
    labels = DocumentField()
    memory_bytes = BigIntegerField()
    gpus = DocumentField()
    disk_free_bytes = BigIntegerField()
    disk_total_bytes = BigIntegerField()
    settings = DocumentField()
    created_at = MomentField()
    last_seen_at = MomentField()
    set_labels = DocumentField()
    set_max_rate = BigIntegerField(null=True)
    set_max_upload_rate = BigIntegerField(null=True)
    set_max_hub_rate = BigIntegerField(null=True)

    class Meta:
        """Naming."""

        table_name = "nodes"


class SiteRow(Table):
    """What may cross a site's line."""

    name = CharField(primary_key=True)
    max_hub_rate = BigIntegerField()
    timetable = DocumentField()
    time_zone = CharField()

    class Meta:
        """Naming."""

        table_name = "sites"


class HoldingRow(Table):
    """A model that a node holds, or held: then `verified_at` is empty."""

    model_name = CharField(max_length=1300)
    node_id = CharField(index=True)
    verified_at = MomentField(null=True)

    class Meta:
        """Naming."""

        table_name = "holdings"
        primary_key = CompositeKey("model_name", "node_id")


class EvictionRow(Table):
    """Files to remove from a node, until the node says that it is done."""

    eviction_id = CharField(primary_key=True)
    node_id = CharField(index=True)
    manifest = DocumentField()
    created_at = MomentField()

    class Meta:
        """Naming."""

        table_name = "evictions"


class CatalogRow(Table):
    """Something the Hub said."""

    kind = CharField()
    key = CharField(max_length=1300)
    body = BlobField()
    size_bytes = IntegerField()
    fetched_at = MomentField()
    used_at = MomentField(index=True)

    class Meta:
        """Naming."""

        table_name = "catalog"
        primary_key = CompositeKey("kind", "key")


TABLES: tuple[type[Table], ...] = (
    SettingRow,
    ModelRow,
    OrderRow,
    TaskRow,
    NodeRow,
    SiteRow,
    HoldingRow,
    EvictionRow,
    CatalogRow,
)
