"""`llm-router-agent`: the daemon on a node."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import click

from agent.config import Config, Label, NodeName, host_name, usual_models_dir
from agent.identity import DamagedIdentity, DataFolderInUse
from agent.options import disk_options, engine_options, engines, peer_options, serving
from agent.store import StoreError
from agent.transfer import XetUse
from protos.daemon import logs
from protos.daemon.config import daemon_options
from protos.daemon.listen import is_loopback, require_loopback
from protos.daemon.ready import version
from protos.daemon.sizes import ByteSize

_ENV = "LLM_ROUTER_AGENT"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option(
    "--router",
    metavar="HOST:PORT",
    default="127.0.0.1:50051",
    envvar="LLM_ROUTER_ADDRESS",
    show_envvar=True,
    help="The router to follow; it need not be there yet.",
)
@click.option(
    "--insecure",
    is_flag=True,
    envvar=f"{_ENV}_INSECURE",
    show_envvar=True,
    help="Follow a router on another machine, or serve other machines, although nothing is "
    "encrypted.",
)
@click.option(
    "--name",
    type=NodeName(),
    default=host_name,
    envvar=f"{_ENV}_NAME",
    show_envvar=True,
    show_default="the host's name",
    help="What people call this node.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=lambda: Path.home() / ".llm-router-agent",
    envvar=f"{_ENV}_DATA_DIR",
    show_envvar=True,
    show_default="~/.llm-router-agent",
    help="Keeps the node's id and what it is doing; each agent needs its own.",
)
@click.option(
    "--models-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=usual_models_dir,
    envvar="HF_HUB_CACHE",
    show_envvar=True,
    show_default="the Hugging Face cache",
    help="Where the models are: a Hugging Face cache.",
)
@click.option(
    "--label",
    "labels",
    type=Label(),
    metavar="KEY=VALUE",
    multiple=True,
    envvar=f"{_ENV}_LABEL",
    show_envvar=True,
    help="Describes this node; may be repeated.",
)
@click.option(
    "--max-concurrent",
    type=click.IntRange(1, 64),
    default=2,
    envvar=f"{_ENV}_MAX_CONCURRENT",
    show_envvar=True,
    help="Models that are fetched at the same time.",
)
@click.option(
    "--max-rate",
    type=ByteSize(),
    metavar="BYTES/s",
    default=0,
    envvar=f"{_ENV}_MAX_RATE",
    show_envvar=True,
    show_default="no limit",
    help="Ceiling for all downloads together, as in 20MB; the operator may set another.",
)
@click.option(
    "--reserve",
    type=ByteSize(),
    metavar="BYTES",
    default=0,
    envvar=f"{_ENV}_RESERVE",
    show_envvar=True,
    help="Disk to keep free, as in 10GiB.",
)
@click.option(
    "--xet",
    type=click.Choice([use.value for use in XetUse]),
    default=XetUse.AUTO.value,
    envvar=f"{_ENV}_XET",
    show_envvar=True,
    help="When to fetch through the Hub's Xet storage: auto: only files that the Hub does not "
    "serve by plain HTTP (above 50 GB); always: wherever "
    "it is offered; never.",
)
@click.option(
    "--hub-url",
    default="https://huggingface.co",
    envvar="HF_ENDPOINT",
    show_envvar=True,
    help="The Hub; the token in HF_TOKEN, if any, is sent to this origin only.",
)
@click.option(
    "--stall",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    default=30.0,
    envvar=f"{_ENV}_STALL",
    show_envvar=True,
    help="A source that sends nothing for so long is asked again.",
)
@click.option(
    "--backoff-first",
    type=click.FloatRange(min=0.01),
    metavar="SECONDS",
    default=0.5,
    envvar=f"{_ENV}_BACKOFF_FIRST",
    show_envvar=True,
    help="Wait before the first try to reach the router again; doubles.",
)
@click.option(
    "--backoff-max",
    type=click.FloatRange(min=0.01),
    metavar="SECONDS",
    default=5.0,
    envvar=f"{_ENV}_BACKOFF_MAX",
    show_envvar=True,
    help="The longest wait between tries to reach the router.",
)
@peer_options(_ENV)
@disk_options(_ENV)
@engine_options(_ENV)
@daemon_options(_ENV)
@click.version_option(version(), prog_name="llm-router-agent")
def main(log_format: str, log_level: str, insecure: bool, **settings: Any) -> None:
    """Brings models to this machine as the router asks, and tells it how far they are."""
    # Read when gRPC is imported: its notes would stand between our log lines.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from agent import app

    logs.configure(log_format, log_level)
    config = _config(settings)
    _require_trust(config.router, insecure)
    if config.serving is not None:
        _require_trusted_network(config.serving.host, insecure)
    try:
        asyncio.run(app.run(config))
    except (DataFolderInUse, DamagedIdentity, StoreError, OSError) as error:
        click.echo(f"llm-router-agent: {error}", err=True)
        sys.exit(1)


def _config(settings: dict[str, Any]) -> Config:
    return Config(
        router=settings["router"],
        name=settings["name"],
        data_dir=settings["data_dir"].expanduser().absolute(),
        models_dir=settings["models_dir"].expanduser().absolute(),
        labels=dict(settings["labels"]),
        max_concurrent=settings["max_concurrent"],
        max_rate=settings["max_rate"] or None,
        reserve_bytes=settings["reserve"],
        xet=XetUse(settings["xet"]),
        hub_url=settings["hub_url"],
        hf_token=os.environ.get("HF_TOKEN") or None,
        stall_seconds=settings["stall"],
        backoff_first_seconds=settings["backoff_first"],
        backoff_max_seconds=settings["backoff_max"],
        max_store_bytes=settings["max_store"] or None,
        scrub_interval=settings["scrub_interval"],
        scrub_rate=settings["scrub_rate"] or None,
        engines=engines(settings),
        serving=serving(settings),
        ready_file=settings["ready_file"],
    )


def _require_trust(router: str, insecure: bool) -> None:
    host, colon, port = router.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise click.UsageError(f"{router} is not an address: write --router HOST:PORT")
    if is_loopback(host):
        return
    if not insecure:
        raise click.UsageError(
            f"the router at {router} is another machine, and connections are neither encrypted nor "
            "checked for who answers; add --insecure on a network that you trust"
        )
    logs.get_logger(__name__).warning(
        "INSECURE: following a router on another machine without encryption and without "
        "credentials; whoever can answer at this address decides what this node downloads and "
        "removes",
        router=router,
    )


def _require_trusted_network(host: str, insecure: bool) -> None:
    require_loopback(host, insecure)
    if not is_loopback(host):
        logs.get_logger(__name__).warning(
            "INSECURE: serving other machines without encryption; whoever can read this network "
            "reads the models that pass, and can ask for them while a ticket that passed counts",
            host=host,
        )


if __name__ == "__main__":
    main()
