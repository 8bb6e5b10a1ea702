"""Leave to read one file from a node, signed with the secret that the nodes of a fleet share.

A ticket names a file by its SHA-256 and a moment (seconds since the epoch) after which it counts no
more. It travels as `Authorization: Ticket expires=<moment>,mac=<hex>`, or, where whoever follows a
redirect sends no field of ours, as the query `expires=<moment>&mac=<hex>`.
"""

import hashlib
import hmac
import re

TICKET_SECONDS = 3600
_SKEW_SECONDS = 300  # clocks of two machines
_LONGEST_SECONDS = 86_400
_FIELD = re.compile(r"Ticket expires=([0-9]{1,12}),mac=([0-9a-f]{64})")
_QUERY = re.compile(r"expires=([0-9]{1,12})&mac=([0-9a-f]{64})")


def ticket_field(key: bytes, sha256: str, expires: int) -> str:
    """The value of the `Authorization` field."""
    return f"Ticket expires={expires},mac={_mac(key, sha256, expires)}"


def ticket_query(key: bytes, sha256: str, expires: int) -> str:
    """The query of a URL, without the question mark."""
    return f"expires={expires}&mac={_mac(key, sha256, expires)}"


def is_valid(key: bytes, sha256: str, *, field: str = "", query: str = "", now: float) -> bool:
    """Whether one of the two forms is a ticket for this file that counts `now`."""
    match = _FIELD.fullmatch(field) or _QUERY.fullmatch(query)
    if match is None:
        return False
    expires = int(match[1])
    if not now - _SKEW_SECONDS < expires < now + _LONGEST_SECONDS + _SKEW_SECONDS:
        return False
    return hmac.compare_digest(match[2], _mac(key, sha256, expires))


def _mac(key: bytes, sha256: str, expires: int) -> str:
    return hmac.new(key, f"{sha256}\n{expires}".encode(), hashlib.sha256).hexdigest()
