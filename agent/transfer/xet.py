"""A file in the Hub's Xet storage, by `hf_xet`: the same bytes by another way.

The Hub offers it in its answer for a file: `X-Xet-Hash`, and a `Link` with `rel="xet-auth"` to the
route that gives addresses and tokens of the storage (huggingface_hub 2.x reads the same).
`docs/adr/0005-xet-only-where-http-cannot.md` says when it is used.
"""

import contextlib
import importlib
import importlib.util
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import ModuleType
from typing import Any
from urllib.parse import urljoin

from agent.store import Origin
from agent.transfer.http import BadUrl, HttpClient, parse_url
from agent.transfer.interrupt import Interrupt
from agent.transfer.source import Cause, SourceFailure, SourceUrl

# The Hub serves no larger file by plain HTTP (its documentation, "storage limits").
LARGEST_BY_HTTP = 50_000_000_000
# Pieces and streams at once: hf_xet holds a few of its buffers for each stream in memory.
XET_PIECE_BYTES = 16 << 20
XET_STREAMS = 2
_BUFFER_BYTES = 32 << 20
_SETTINGS = {
    "reconstruction.download_buffer_size": 2 * _BUFFER_BYTES,
    "reconstruction.download_buffer_perfile_size": _BUFFER_BYTES,
    "reconstruction.download_buffer_limit": 2 * _BUFFER_BYTES,
    "reconstruction.min_prefetch_buffer": _BUFFER_BYTES,
    "reconstruction.min_reconstruction_fetch_size": _BUFFER_BYTES,
}
_HASH = re.compile("[0-9a-f]{64}")
_LINK = re.compile(r'<([^>]+)>\s*;\s*rel="?xet-auth"?')
_MAX_REDIRECTS = 5
_ANSWER_SECONDS = 15.0


class XetUse(StrEnum):
    """When files come through Xet: where plain HTTP cannot bring them, never, or if offered."""

    AUTO = "auto"
    NEVER = "never"
    ALWAYS = "always"

    def wants(self, size: int) -> bool:
        """Whether a file of this size should come through Xet, if it can."""
        if self is XetUse.AUTO:
            return size > LARGEST_BY_HTTP
        return self is XetUse.ALWAYS


@dataclass(frozen=True, slots=True)
class XetOffer:
    """What `hf_xet` needs to fetch one file; `fields` go to the token route only."""

    hash: str
    token_url: str
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)


def find_offer(client: HttpClient, place: SourceUrl, interrupt: Interrupt) -> XetOffer | None:
    """Asks a Hub whether it offers a file through Xet; None when it does not, or does not answer.

    Blocks until it answers. Raises `Interrupted`.
    """
    if importlib.util.find_spec("hf_xet") is None:
        return None
    try:
        url, fields = parse_url(place.url), place.headers
        for _ in range(_MAX_REDIRECTS):
            connection = client.connect(url, interrupt, fresh=True)
            try:
                connection.socket.settimeout(_ANSWER_SECONDS)
                head = connection.request("HEAD", url, fields)
            finally:
                interrupt.detach()
                connection.close()
            xet_hash = head.fields.get("x-xet-hash", "")
            link = _LINK.search(head.fields.get("link", ""))
            if _HASH.fullmatch(xet_hash) and link is not None:
                token_url = parse_url(urljoin(url.text, link[1]))
                same = token_url.origin == url.origin
                return XetOffer(xet_hash, token_url.text, dict(fields) if same else {})
            if head.status not in (301, 302, 307, 308):
                return None
            target = url.join(head.fields.get("location", ""))
            if target.origin != url.origin:
                return None  # the storage behind the Hub, which says nothing of Xet
            url = target
    except (OSError, BadUrl):
        interrupt.check()
    return None


class XetSource:
    """Ranges of one file through Xet; safe for several threads.

    `hf_xet` checks each chunk against the hash that names it; the registered SHA-256 decides in
    the end, as for any source.
    """

    def __init__(self, offer: XetOffer, size: int) -> None:
        self._offer = offer
        self._size = size
        self._xet: ModuleType = importlib.import_module("hf_xet")
        self._lock = threading.Lock()
        self._group: Any = None

    @property
    def origin(self) -> Origin:
        """See `Source`."""
        return Origin.HUB

    @property
    def name(self) -> str:
        """See `Source`."""
        return "the Hub's Xet storage"

    @property
    def supports_ranges(self) -> bool:
        """See `Source`."""
        return True

    def open(self, offset: int, length: int, interrupt: Interrupt) -> "XetRead":
        """See `Source`."""
        info = self._xet.XetFileInfo(self._offer.hash, self._size)
        try:
            group = self._streams()
            interrupt.attach(_Abort(self, group))
            stream = group.download_stream(info, start=offset, end=offset + length)
        except (OSError, RuntimeError, ValueError) as error:
            interrupt.check()
            raise self.failure(error) from error
        return XetRead(self, stream, length, interrupt)

    def failure(self, error: Exception) -> SourceFailure:
        """What an error of `hf_xet` means."""
        refused = (self._xet.XetAuthenticationError, self._xet.XetObjectNotFoundError)
        cause = Cause.REJECTED if isinstance(error, refused) else Cause.UNAVAILABLE
        return SourceFailure(cause, f"{self.name} broke off: {str(error)[:200]}")

    def forget(self, group: Any) -> None:
        """Ends all streams of a group; the next range begins a new one."""
        with self._lock:
            if self._group is group:
                self._group = None
        with contextlib.suppress(RuntimeError, OSError):
            group.abort()

    def close(self) -> None:
        """Ends what still runs inside `hf_xet`."""
        with self._lock:
            group = self._group
        if group is not None:
            self.forget(group)

    def _streams(self) -> Any:
        with self._lock:
            if self._group is None:
                config = self._xet.XetConfig()
                for setting, value in _SETTINGS.items():
                    config = config.with_config(setting, value)
                self._group = self._xet.XetSession(config).new_download_stream_group(
                    token_refresh_url=self._offer.token_url,
                    token_refresh_headers=dict(self._offer.fields),
                )
            return self._group


class _Abort:
    """What `Interrupt` does to a socket, for a group: a stream cannot be ended while it is read."""

    def __init__(self, source: XetSource, group: Any) -> None:
        self._source = source
        self._group = group

    def shutdown(self, how: int, /) -> None:
        """Wakes the threads that read from the group."""
        self._source.forget(self._group)


class XetRead:
    """The bytes of one range; chunks of `hf_xet` handed on in small parts."""

    def __init__(self, source: XetSource, stream: Any, length: int, interrupt: Interrupt) -> None:
        self._source = source
        self._stream = stream
        self._chunks: Iterator[bytes] = iter(stream)
        self._chunk = memoryview(b"")
        self._left = length
        self._interrupt = interrupt

    def read_into(self, buffer: memoryview) -> int:
        """See `RangedRead`."""
        while not self._chunk:
            self._chunk = memoryview(self._next())
        count = min(len(buffer), len(self._chunk), self._left)
        buffer[:count] = self._chunk[:count]
        self._chunk = self._chunk[count:]
        self._left -= count
        return count

    def close(self) -> None:
        """See `RangedRead`."""
        self._interrupt.detach()
        self._chunk = memoryview(b"")
        if self._left:
            with contextlib.suppress(RuntimeError, OSError):
                self._stream.cancel()

    def _next(self) -> bytes:
        try:
            return next(self._chunks)
        except StopIteration:
            self._interrupt.check()
            raise SourceFailure(
                Cause.UNAVAILABLE, f"{self._source.name} gave fewer bytes than asked for"
            ) from None
        except (OSError, RuntimeError, ValueError) as error:
            self._interrupt.check()
            raise self._source.failure(error) from error
