"""Signed, expiring addresses of files, as the Hub hands them out for its CDN."""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from urllib.parse import urlencode

PREFIX = "/lfs"


class UrlSigner:
    """Makes and checks addresses that work for `lifetime` seconds.

    The secret lives as long as the process: after a restart a client asks for a new address, as it
    does when one expires.
    """

    def __init__(self, lifetime: float, clock: Callable[[], float]) -> None:
        self._secret = secrets.token_bytes(32)
        self._lifetime = lifetime
        self._clock = clock

    def path(self, repo: str, sha256: str, commit: str) -> str:
        """Path and query of a new address of this content, as the commit holds it."""
        place = f"{PREFIX}/{repo}/{sha256}"
        expires = str(int(self._clock() + self._lifetime))
        signature = self._signature(place, commit, expires)
        return (
            f"{place}?{urlencode({'Commit': commit, 'Expires': expires, 'Signature': signature})}"
        )

    def refusal(self, place: str, query: Mapping[str, str]) -> str | None:
        """Why an address does not work, given its path and query; None when it does."""
        expires = query.get("Expires", "")
        wanted = self._signature(place, query.get("Commit", ""), expires)
        if not hmac.compare_digest(query.get("Signature", "").encode(), wanted.encode()):
            return "the signature of this address is wrong"
        if self._clock() >= int(expires):
            return "this address has expired"
        return None

    def _signature(self, place: str, commit: str, expires: str) -> str:
        message = f"{place}\n{commit}\n{expires}".encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()
