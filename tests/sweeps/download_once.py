"""A process that downloads one file into a folder, to be killed.

Arguments: FOLDER URL SIZE SHA256. It fetches in small pieces with a small window, so
that a few megabytes hold many moments to die in.
"""

import sys
from pathlib import Path

from agent.manifest import Manifest, ManifestFile
from agent.store import Store, StoreError
from agent.transfer import Proxies, RateLimit, SourceUrl, Transfer, TransferError, TransferOptions

PIECE_BYTES = 128 << 10
WINDOW_BYTES = 512 << 10


class StderrLog:
    """Events on stderr."""

    def info(self, event: str, **fields: object) -> None:
        """See `Log`."""
        print(event, fields, file=sys.stderr)

    def warning(self, event: str, **fields: object) -> None:
        """See `Log`."""
        print(event, fields, file=sys.stderr)


def manifest(size: int, sha256: str) -> Manifest:
    """The manifest of the one file."""
    file = ManifestFile("model.gguf", size, sha256, "https://hub.invalid/model.gguf")
    return Manifest("hf/o/r/model.gguf", "o/r", "main", "c" * 40, "m" * 64, (file,))


def main() -> int:
    """Exit code 0: the file is verified and in place; 3: the transfer ended with an error."""
    folder, url, size, sha256 = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    options = TransferOptions(
        piece_bytes=PIECE_BYTES,
        window_bytes=WINDOW_BYTES,
        backoff_seconds=0.01,
        wait_for_room=False,
        proxies=Proxies(),
    )
    wanted, rate = manifest(size, sha256), RateLimit()
    try:
        store = Store(folder / "hub", folder / "state")
        Transfer(wanted, store, options, rate, lambda f: SourceUrl(url), StderrLog()).run()
    except (TransferError, StoreError) as error:
        print(error.code, error.message, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
