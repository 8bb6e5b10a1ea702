"""`llm-router-hub`: a small Hub server over a folder of models."""

import asyncio
from pathlib import Path

import click

from protos.daemon import logs
from protos.daemon.config import daemon_options
from protos.daemon.listen import exposure_warning, require_loopback
from protos.daemon.ready import version
from protos.daemon.sizes import ByteSize
from router.hosting.app import HubOptions, create_app
from router.hosting.server import Endpoint, serve

ENV = "LLM_ROUTER_HUB"
log = logs.get_logger("router.hosting")


@click.command()
@click.argument(
    "folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "--host",
    default="127.0.0.1",
    envvar=f"{ENV}_HOST",
    show_envvar=True,
    show_default=True,
    help="Address to listen on; beyond this machine only with --insecure.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8090,
    envvar=f"{ENV}_PORT",
    show_envvar=True,
    show_default=True,
    help="Port to listen on; 0 is any free one.",
)
@click.option(
    "--insecure",
    is_flag=True,
    envvar=f"{ENV}_INSECURE",
    show_envvar=True,
    help="Allow a --host that other machines reach: no encryption, everyone may read.",
)
@click.option(
    "--signed-urls/--no-signed-urls",
    default=False,
    envvar=f"{ENV}_SIGNED_URLS",
    show_envvar=True,
    show_default=True,
    help="Redirect downloads to signed, expiring addresses, as the real Hub does.",
)
@click.option(
    "--url-lifetime",
    type=click.FloatRange(min=0, min_open=True),
    default=3600,
    envvar=f"{ENV}_URL_LIFETIME",
    show_envvar=True,
    show_default=True,
    help="Seconds for which a signed address works.",
)
@click.option(
    "--max-rate",
    type=ByteSize(),
    default=0,
    envvar=f"{ENV}_MAX_RATE",
    show_envvar=True,
    show_default=True,
    help="Bytes per second for all downloads together, as 500000 or 20MB; 0 is no limit.",
)
@daemon_options(ENV)
@click.version_option(version(), prog_name="llm-router-hub")
def main(
    folder: Path,
    host: str,
    port: int,
    insecure: bool,
    signed_urls: bool,
    url_lifetime: float,
    max_rate: int,
    ready_file: Path | None,
    log_format: str,
    log_level: str,
) -> None:
    """Serve the models in DIR (owner/repo/…files) in the Hugging Face Hub's own protocol.

    Point HF_ENDPOINT of any program that uses the Hub at it. Files may be added and removed while
    it runs. It remembers their digests in DIR/.llm-router-hub when it may write there.
    """
    require_loopback(host, insecure)
    logs.configure(log_format, log_level)
    if (warning := exposure_warning(host)) is not None:
        log.warning(warning)
    options = HubOptions(
        host=host, signed_urls=signed_urls, url_lifetime=url_lifetime, max_rate=max_rate
    )
    try:
        asyncio.run(serve(create_app(folder, options), Endpoint(host, port, ready_file)))
    except OSError as error:
        raise click.ClickException(f"cannot serve {folder} on {host}:{port}: {error}") from error


if __name__ == "__main__":
    main()
