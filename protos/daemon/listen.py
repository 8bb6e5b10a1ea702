"""Closed by default: who may be listened to before there are credentials."""

import ipaddress

import click


def is_loopback(host: str) -> bool:
    """Whether the host is this machine alone: `localhost`, 127.0.0.0/8 or ::1, `[…]` or not."""
    bare = host.removeprefix("[").removesuffix("]")
    if bare.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def require_loopback(host: str, insecure: bool) -> None:
    """Raises `click.UsageError` for a host beyond loopback that `--insecure` did not ask for."""
    if not insecure and not is_loopback(host):
        raise click.UsageError(
            f"{host} can be reached by other machines, and connections are neither encrypted nor "
            "checked for who is calling; listen on 127.0.0.1, or add --insecure on a network that "
            "you trust"
        )


def exposure_warning(host: str) -> str | None:
    """What `--insecure` means for this host, to be logged as a warning; None on loopback."""
    if is_loopback(host):
        return None
    return (
        f"INSECURE: listening on {host} without encryption and without credentials; everyone who "
        "can reach this address can use it and read what passes"
    )


def is_own_host(header: str | None, host: str) -> bool:
    """Whether a `Host` header (or an `Origin` without its scheme) is meant for this server.

    A server on loopback is asked for by a loopback name only; anything else is a web page that
    had its own name resolved to this machine (DNS rebinding). Beyond loopback every name passes.
    """
    if not is_loopback(host):
        return True
    if not header:
        return False
    name, colon, port = header.rpartition(":")
    return is_loopback(name if colon and port.isdigit() else header)


def address(host: str, port: int) -> str:
    """`host:port` as it is written in a URL: an IPv6 host in brackets."""
    bare = host.removeprefix("[").removesuffix("]")
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"
