"""What the Hub tells of a file to whoever asks without an account."""

import threading
from urllib.parse import urljoin, urlsplit

import httpx

_SECONDS = 5.0
_MOST_REDIRECTS = 5
_TOLD = ("x-repo-commit", "etag", "x-linked-etag", "x-linked-size", "accept-ranges")


class HubHeads:
    """Asks for heads of files, without the router's token. Safe from any thread; blocking."""

    def __init__(self, hub_url: str) -> None:
        """`hub_url` without a slash at its end."""
        self._hub_url = hub_url
        self._made = threading.Lock()
        self._client: httpx.Client | None = None

    def told(self, path: str) -> dict[str, str]:
        """The fields that name a file's commit, digest and size; {} when the Hub tells none.

        `path` is that of a file below the Hub's own address, as it is written in a URL. Redirects
        are followed on the Hub alone: what stands in one that leads elsewhere counts.
        """
        url = f"{self._hub_url}{path}"
        with self._made:
            client = self._client = self._client or httpx.Client(timeout=_SECONDS)
        try:
            for _ in range(_MOST_REDIRECTS):
                answer = client.head(url, headers={"Accept-Encoding": "identity"})
                target = urljoin(url, answer.headers.get("location", url))
                if not answer.is_redirect or urlsplit(target)[:2] != urlsplit(url)[:2]:
                    break
                url = target
        except (httpx.HTTPError, httpx.InvalidURL):
            return {}
        if answer.is_error or "x-repo-commit" not in answer.headers:
            return {}
        told = {name: answer.headers[name] for name in _TOLD if name in answer.headers}
        if not answer.is_redirect and "content-length" in answer.headers:
            told.setdefault("x-linked-size", answer.headers["content-length"])
        return told

    def close(self) -> None:
        """Asks no more."""
        with self._made:
            if self._client is not None:
                self._client.close()
