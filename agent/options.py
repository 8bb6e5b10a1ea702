"""The options of `llm-router-agent` about what becomes of models once they are on disk."""

import ipaddress
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from agent.config import Engines, Serving
from protos.daemon.sizes import ByteSize

Command = TypeVar("Command", bound=Callable[..., Any])

_SPAN = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([smhdw]?)\s*", re.IGNORECASE)
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::([0-9]{1,5}))?")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
_SECONDS = {"": 3600.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


class Span(click.ParamType[float]):
    """A span of time as people write it: `90s`, `30m`, `12h`, `7d`; a bare number means hours."""

    name = "span"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number of seconds."""
        match = _SPAN.fullmatch(str(value))
        if match is None:
            self.fail(f"{value} is not a span of time: write 12h, 7d or 0", param, ctx)
        return float(match[1]) * _SECONDS[match[2].lower()]


class CommandLine(click.ParamType[str]):
    """A command with its arguments, quoted as for a shell, which there is none."""

    name = "command"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, unchanged."""
        try:
            words = shlex.split(str(value))
        except ValueError as error:
            self.fail(f"{value} cannot be read as a command: {error}", param, ctx)
        if not words:
            self.fail("the command is empty", param, ctx)
        return str(value)


class HttpUrl(click.ParamType[str]):
    """An `http://` or `https://` address."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The address without a slash at its end."""
        if not str(value).startswith(("http://", "https://")):
            self.fail(f"{value} is not an address: write http://HOST:PORT", param, ctx)
        return str(value).rstrip("/")


class PeerAddress(click.ParamType[str]):
    """A host that other nodes can reach, with or without a port: IPv6 with a port in brackets."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, unchanged."""
        text = str(value)
        match = _HOST_AND_PORT.fullmatch(text)
        if not (_is_v6(text) or (match is not None and _is_host(match[1]) and _is_port(match[2]))):
            self.fail(f"{value} is not an address: write HOST, HOST:PORT or [v6]:PORT", param, ctx)
        return text


def _is_v6(text: str) -> bool:
    try:
        return isinstance(ipaddress.ip_address(text), ipaddress.IPv6Address)
    except ValueError:
        return False


def _is_host(text: str) -> bool:
    if text.startswith("["):
        return text.endswith("]") and _is_v6(text[1:-1])
    return _HOST.fullmatch(text) is not None


def _is_port(text: str | None) -> bool:
    return text is None or 0 < int(text) < 1 << 16


def peer_options(env_prefix: str) -> Callable[[Command], Command]:
    """Adds the options that make a `Serving`; the command receives its fields."""
    return _all(
        click.option(
            "--no-peers",
            is_flag=True,
            envvar=f"{env_prefix}_NO_PEERS",
            show_envvar=True,
            help="Serve nothing to other nodes.",
        ),
        click.option(
            "--peer-host",
            metavar="HOST",
            default="127.0.0.1",
            envvar=f"{env_prefix}_PEER_HOST",
            show_envvar=True,
            help="Where other nodes get pieces of what this one holds; 0.0.0.0: all interfaces, "
            '"::": with IPv6 too. Beyond loopback it needs --insecure.',
        ),
        click.option(
            "--peer-port",
            type=click.IntRange(0, 65535),
            default=0,
            envvar=f"{env_prefix}_PEER_PORT",
            show_envvar=True,
            help="The port for other nodes; 0: any free one.",
        ),
        click.option(
            "--peer-address",
            "peer_addresses",
            type=PeerAddress(),
            metavar="HOST[:PORT]",
            multiple=True,
            envvar=f"{env_prefix}_PEER_ADDRESS",
            show_envvar=True,
            help="Tell other nodes this address instead of what was found out, as behind NAT; may "
            "be repeated, the likeliest first.",
        ),
        click.option(
            "--max-peer-connections",
            type=click.IntRange(1, 4096),
            default=64,
            envvar=f"{env_prefix}_MAX_PEER_CONNECTIONS",
            show_envvar=True,
            help="Connections of other nodes that are served at the same time.",
        ),
        click.option(
            "--max-upload-rate",
            type=ByteSize(),
            metavar="BYTES/s",
            default=0,
            envvar=f"{env_prefix}_MAX_UPLOAD_RATE",
            show_envvar=True,
            show_default="no limit",
            help="Ceiling for everything that other nodes get together, as in 20MB; the operator "
            "may set another.",
        ),
    )


def serving(settings: dict[str, Any]) -> Serving | None:
    """Reads what `peer_options` added."""
    if settings["no_peers"]:
        return None
    return Serving(
        host=settings["peer_host"],
        port=settings["peer_port"],
        addresses=tuple(settings["peer_addresses"]),
        max_connections=settings["max_peer_connections"],
        max_rate=settings["max_upload_rate"] or None,
    )


def disk_options(env_prefix: str) -> Callable[[Command], Command]:
    """Adds `--max-store`, `--scrub-interval` and `--scrub-rate`."""
    return _all(
        click.option(
            "--max-store",
            type=ByteSize(),
            metavar="BYTES",
            default=0,
            envvar=f"{env_prefix}_MAX_STORE",
            show_envvar=True,
            show_default="no limit",
            help="What the models may take on disk, as in 500GB. When a download needs room, "
            "models that no order wants are removed, the least recently used first, whoever put "
            "them into the models folder.",
        ),
        click.option(
            "--scrub-interval",
            type=Span(),
            metavar="TIME",
            default="7d",
            envvar=f"{env_prefix}_SCRUB_INTERVAL",
            show_envvar=True,
            help="Each verified file is read again so often, as in 12h (a bare number: hours); "
            "0: never.",
        ),
        click.option(
            "--scrub-rate",
            type=ByteSize(),
            metavar="BYTES/s",
            default="50MB",
            envvar=f"{env_prefix}_SCRUB_RATE",
            show_envvar=True,
            help="Ceiling for reading files again; 0: none.",
        ),
    )


def engine_options(env_prefix: str) -> Callable[[Command], Command]:
    """Adds the options that make an `Engines`; the command receives its fields."""
    folder = click.Path(file_okay=False, path_type=Path)
    return _all(
        click.option(
            "--view-llama-server",
            type=folder,
            metavar="DIR",
            envvar=f"{env_prefix}_VIEW_LLAMA_SERVER",
            show_envvar=True,
            help="Keep links to all verified GGUF models in this folder, for llama-server "
            "--models-dir.",
        ),
        click.option(
            "--view-lmstudio",
            type=folder,
            metavar="DIR",
            envvar=f"{env_prefix}_VIEW_LMSTUDIO",
            show_envvar=True,
            help="The same for LM Studio: links DIR/<publisher>/<repo>/<file>.",
        ),
        click.option(
            "--view-ollama",
            type=folder,
            metavar="DIR",
            envvar=f"{env_prefix}_VIEW_OLLAMA",
            show_envvar=True,
            help="The same for Ollama: hard links in DIR/blobs (DIR is its OLLAMA_MODELS), and "
            "models made of them, called <owner>/<repo>:<quantization>.",
        ),
        click.option(
            "--ollama-url",
            type=HttpUrl(),
            metavar="URL",
            default="http://127.0.0.1:11434",
            envvar=f"{env_prefix}_OLLAMA_URL",
            show_envvar=True,
            help="Where Ollama listens.",
        ),
        click.option(
            "--llama-server-url",
            type=HttpUrl(),
            metavar="URL",
            envvar=f"{env_prefix}_LLAMA_SERVER_URL",
            show_envvar=True,
            help="A llama-server in router mode that is told to look again when models come or go.",
        ),
        click.option(
            "--after-commit",
            type=CommandLine(),
            metavar="COMMAND",
            envvar=f"{env_prefix}_AFTER_COMMIT",
            show_envvar=True,
            help="Run, without a shell, after a model has arrived: at least once for each. It "
            "finds LLM_ROUTER_MODEL, LLM_ROUTER_MODEL_PATH (the first file), LLM_ROUTER_MODEL_DIR, "
            "LLM_ROUTER_REPO, LLM_ROUTER_COMMIT and LLM_ROUTER_TASK in its environment. Its output "
            "goes to the log; its failure fails no task.",
        ),
        click.option(
            "--after-commit-timeout",
            type=click.FloatRange(min=0.1),
            metavar="SECONDS",
            default=300.0,
            envvar=f"{env_prefix}_AFTER_COMMIT_TIMEOUT",
            show_envvar=True,
            help="The command is killed, with its children, after so long.",
        ),
    )


def engines(settings: dict[str, Any]) -> Engines:
    """Reads what `engine_options` added."""
    return Engines(
        view_llama_server=_absolute(settings["view_llama_server"]),
        view_lmstudio=_absolute(settings["view_lmstudio"]),
        view_ollama=_absolute(settings["view_ollama"]),
        ollama_url=settings["ollama_url"],
        llama_server_url=settings["llama_server_url"],
        after_commit=settings["after_commit"],
        after_commit_seconds=settings["after_commit_timeout"],
    )


def _absolute(folder: Path | None) -> Path | None:
    return None if folder is None else folder.expanduser().absolute()


def _all(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
