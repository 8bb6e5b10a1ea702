"""Our engine in a process of its own, for `bench.download`.

Arguments: JOB TARGET. The job is a JSON file: `files` (`path`, `url`, `size`, `sha256`), `verify`,
`cafile`. Prints the seconds and processor seconds of the download without the start of Python:
an agent is running when an order comes.
"""

import json
import os
import ssl
import sys
import time
from pathlib import Path

from agent.manifest import Manifest, ManifestFile
from agent.store import Partial, Store
from agent.transfer import Proxies, RateLimit, SourceUrl, Transfer, TransferOptions, XetUse
from agent.transfer.blob import BlobDownload
from agent.transfer.http import HttpClient
from agent.transfer.http_source import HttpSource
from agent.transfer.pieces import InOrder


class Complaints:
    """A log of what went wrong only."""

    def info(self, event: str, **fields: object) -> None:
        """See `Log`."""

    def warning(self, event: str, **fields: object) -> None:
        """See `Log`."""
        print(event, fields, file=sys.stderr)


def fetch_verified(files: list[ManifestFile], folder: Path, options: TransferOptions) -> None:
    """What an agent does."""
    manifest = Manifest("hf/o/r/model.gguf", "o/r", "main", "c" * 40, "m", tuple(files))
    store = Store(folder / "hub", folder / "state")
    log = Complaints()
    Transfer(manifest, store, options, RateLimit(), lambda f: SourceUrl(f.url), log).run()


def fetch_unverified(file: ManifestFile, folder: Path, options: TransferOptions) -> None:
    """The engine without hashing and without a cache around it."""
    size = file.size_bytes
    partial = Partial(folder / "model.part", size, "unverified")
    client = HttpClient(options.proxies, options.tls, options.connect_seconds)
    source = HttpSource(client, lambda: SourceUrl(file.url), size=size, sha256=file.sha256)
    schedule = InOrder(source, partial.missing(), size, options.piece_bytes, options.connections)
    BlobDownload(partial, schedule, options, RateLimit(), Complaints(), verify=False).run()
    partial.close()


def main() -> None:
    """Fetches, and tells what it took."""
    job, folder = json.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2])
    tls = ssl.create_default_context(cafile=job["cafile"]) if job["cafile"] else None
    options = TransferOptions(proxies=Proxies(), tls=tls, xet=XetUse.NEVER)
    files = [ManifestFile(f["path"], f["size"], f["sha256"], f["url"]) for f in job["files"]]
    began, used = time.perf_counter(), sum(os.times()[:2])
    if job["verify"]:
        fetch_verified(files, folder, options)
    else:
        fetch_unverified(files[0], folder, options)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "cpu_seconds": sum(os.times()[:2]) - used}))


if __name__ == "__main__":
    main()
