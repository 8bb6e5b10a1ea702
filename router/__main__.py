"""`llm-router-server`: the control plane."""

import asyncio
import os
from pathlib import Path
from urllib.parse import urlsplit

import click

from protos.daemon import logs
from protos.daemon.config import daemon_options
from protos.daemon.listen import exposure_warning, require_loopback
from protos.daemon.ready import version
from protos.daemon.stopping import stop_signals
from router.app import Router
from router.config import Config, Timers
from router.rpc.server import CannotListen
from router.storage.database import UnusableDatabase

ENV = "LLM_ROUTER"
log = logs.get_logger("router")


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    envvar="LLM_ROUTER_HOST",
    show_envvar=True,
    show_default=True,
    help="Address to listen on; beyond this machine only with --insecure.",
)
@click.option(
    "--http-port",
    type=click.IntRange(0, 65535),
    default=8080,
    envvar="LLM_ROUTER_PORT",
    show_envvar=True,
    show_default=True,
    help="Port of REST and dashboard; 0 is any free one.",
)
@click.option(
    "--grpc-port",
    type=click.IntRange(0, 65535),
    default=50051,
    envvar="LLM_ROUTER_GRPC_PORT",
    show_envvar=True,
    show_default=True,
    help="Port of gRPC; 0 is any free one.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("~/.llm-router"),
    envvar="LLM_ROUTER_DATA_DIR",
    show_envvar=True,
    show_default=True,
    help="Where the router keeps what must survive.",
)
@click.option(
    "--database-url",
    envvar="LLM_ROUTER_DATABASE_URL",
    show_envvar=True,
    help="sqlite:///PATH.  [default: router.db in the data dir]",
)
@click.option(
    "--hub-url",
    default="https://huggingface.co",
    envvar="HF_ENDPOINT",
    show_envvar=True,
    show_default=True,
    help="The Hub to browse, as the nodes reach it too.",
)
@click.option(
    "--insecure",
    is_flag=True,
    envvar="LLM_ROUTER_INSECURE",
    show_envvar=True,
    help="Allow a --host that other machines reach: no encryption, everyone is an operator.",
)
@click.option(
    "--heartbeat",
    type=click.FloatRange(0.05, 3600),
    default=10.0,
    envvar="LLM_ROUTER_HEARTBEAT",
    show_default=True,
    help="Seconds after which a silent agent says that it is alive.",
)
@click.option(
    "--lease",
    type=click.FloatRange(0.1, 3600),
    default=40.0,
    envvar="LLM_ROUTER_LEASE",
    show_default=True,
    help="Seconds of silence after which a node counts as offline.",
)
@click.option(
    "--catalog-age",
    type=click.FloatRange(min=0),
    default=300.0,
    envvar="LLM_ROUTER_CATALOG_AGE",
    show_default=True,
    help="Seconds for which a page of the catalog counts as fresh.",
)
@click.option(
    "--max-nodes",
    type=click.IntRange(1),
    default=5000,
    envvar="LLM_ROUTER_MAX_NODES",
    show_default=True,
    help="Agents that may be connected at a time.",
)
@click.option(
    "--max-watches",
    type=click.IntRange(1),
    default=1000,
    envvar="LLM_ROUTER_MAX_WATCHES",
    show_default=True,
    help="Watch and event streams that may be open at a time.",
)
@click.option(
    "--default-context",
    type=click.IntRange(1, 100_000_000),
    default=4096,
    envvar="LLM_ROUTER_DEFAULT_CONTEXT",
    show_envvar=True,
    show_default=True,
    help="Tokens of context for which the memory that a model needs is estimated.",
)
@click.option(
    "--hub-pass-through",
    is_flag=True,
    envvar="LLM_ROUTER_HUB_PASS_THROUGH",
    show_envvar=True,
    help="Send clients of /hub that ask for what is not registered on to the Hub.",
)
@daemon_options(ENV)
@click.version_option(version(), prog_name="llm-router-server")
def main(
    host: str,
    http_port: int,
    grpc_port: int,
    data_dir: Path,
    database_url: str | None,
    hub_url: str,
    insecure: bool,
    heartbeat: float,
    lease: float,
    catalog_age: float,
    max_nodes: int,
    max_watches: int,
    default_context: int,
    hub_pass_through: bool,
    ready_file: Path | None,
    log_format: str,
    log_level: str,
) -> None:
    """Browse the Hub, register models, and order nodes to download them.

    The Hub's token is read from HF_TOKEN and stays here. A flag beats the environment, which beats
    --config FILE, which beats the default.
    """
    require_loopback(host, insecure)
    if lease <= heartbeat:
        raise click.UsageError("--lease must be longer than --heartbeat, best three times")
    logs.configure(log_format, log_level)
    if (warning := exposure_warning(host)) is not None:
        log.warning(warning)
    data_dir = data_dir.expanduser().absolute()
    config = Config(
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        data_dir=data_dir,
        database_url=database_url or f"sqlite:///{data_dir / 'router.db'}",
        hub_url=_hub_url(hub_url),
        hub_token=os.environ.get("HF_TOKEN") or None,
        ready_file=ready_file,
        max_nodes=max_nodes,
        max_watches=max_watches,
        default_context=default_context,
        hub_pass_through=hub_pass_through,
        timers=Timers(heartbeat=heartbeat, lease=lease, catalog_age=catalog_age),
    )
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        asyncio.run(_serve(config))
    except (CannotListen, UnusableDatabase) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"cannot start: {error}") from error


async def _serve(config: Config) -> None:
    with stop_signals() as stop:
        router = Router(config)
        try:
            await router.start()
            await stop.wait()
        finally:
            await router.stop()


def _hub_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.username:
        raise click.UsageError("--hub-url is a web address such as https://huggingface.co")
    return text.rstrip("/")


if __name__ == "__main__":
    main()
