"""The router's settings; `__main__` reads them from flags, environment and file."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Timers:
    """Seconds."""

    heartbeat: float = 10.0
    lease: float = 40.0
    catalog_age: float = 300.0
    hub_hold: float = 8.0  # a client gives up after 10, and asks again when it is told to
    event_comment: float = 15.0  # of nothing, until an event stream says that it is still there


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that the router can be told. `repr` hides the Hub's token."""

    host: str
    http_port: int
    grpc_port: int
    data_dir: Path
    database_url: str
    hub_url: str
    hub_token: str | None = field(default=None, repr=False)
    ready_file: Path | None = None
    max_nodes: int = 5000
    max_watches: int = 1000
    default_context: int = 4096  # tokens for which a model's memory is estimated
    timers: Timers = field(default_factory=Timers)
    hub_pass_through: bool = False  # send who asks /hub for what is not registered on to the Hub
