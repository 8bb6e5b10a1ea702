"""The agent's settings, and the ways a person writes them."""

import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from agent.transfer import XetUse
from protos import names

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Engines:
    """Where inference engines on this node look for models, and what tells them to look again."""

    view_llama_server: Path | None
    view_lmstudio: Path | None
    view_ollama: Path | None
    ollama_url: str
    llama_server_url: str | None
    after_commit: str | None  # a command line
    after_commit_seconds: float


@dataclass(frozen=True, slots=True)
class Serving:
    """Where and how much this node serves other nodes."""

    host: str
    port: int  # 0: any free one
    addresses: tuple[str, ...]  # announced instead of what was found out, if there are any
    max_connections: int
    max_rate: int | None  # bytes per second; None: no limit


@dataclass(frozen=True, slots=True)
class Config:
    """How one agent runs. Sizes in bytes, rates in bytes per second, times in seconds."""

    router: str
    name: str
    data_dir: Path
    models_dir: Path
    labels: dict[str, str]
    max_concurrent: int
    max_rate: int | None  # None: no limit
    reserve_bytes: int
    xet: XetUse
    hub_url: str
    hf_token: str | None = field(repr=False)
    stall_seconds: float
    backoff_first_seconds: float
    backoff_max_seconds: float
    max_store_bytes: int | None  # None: no limit
    scrub_interval: float  # 0: never
    scrub_rate: int | None  # None: no limit
    engines: Engines
    serving: Serving | None  # None: other nodes get nothing
    ready_file: Path | None


class NodeName(click.ParamType[str]):
    """A node's name, by the grammar of names."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, unchanged."""
        try:
            return names.node_name(str(value))
        except names.InvalidName as error:
            self.fail(str(error), param, ctx)


class Label(click.ParamType[tuple[str, str]]):
    """One `KEY=VALUE`."""

    name = "KEY=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """The key and the value."""
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not equals:
            self.fail(f"{value} is not a label: write KEY=VALUE", param, ctx)
        try:
            return names.label(key, text)
        except names.InvalidName as error:
            self.fail(str(error), param, ctx)


def host_name() -> str:
    """The name of the machine, bent to the grammar of node names where it does not follow it."""
    bent = _NOT_IN_NAMES.sub("-", socket.gethostname())[:63].strip("._-")
    return bent or "node"


def usual_models_dir() -> Path:
    """Where Hugging Face's tools keep their cache (`HF_HUB_CACHE`, `HF_HOME`, …)."""
    from huggingface_hub import constants  # reads the environment when it is imported

    return Path(constants.HF_HUB_CACHE)
