"""Files that the router itself gives: `router:/path` in a manifest, on the HTTP port it tells."""

from agent.manifest import ROUTER_SCHEME
from agent.transfer import TransferError


def router_url(url: str, router: str, http_port: int) -> str:
    """The address of such a file, on the host of `router`, which is `HOST:PORT` of its gRPC.

    Raises `TransferError` while the port is not known (0).
    """
    if not http_port:
        raise TransferError(
            "source_unresolved",
            "the router has this file and has not said yet where it serves it",
            retryable=True,
        )
    host = router.rpartition(":")[0]
    return f"http://{host}:{http_port}{url.removeprefix(ROUTER_SCHEME)}"
