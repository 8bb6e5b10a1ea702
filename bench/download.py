"""One file, one source, one run: our engine beside the tools that people use.

    python -m bench.download [--size-mib 1024] [--rounds 3] [--dir FOLDER] [--json]

nginx serves one random file on this machine, plain, over TLS, and throttled to 20 MB/s for each
connection. Every client downloads it into the same folder as a process of its own, start-up
included, in interleaved rounds. Per client: the median GB/s with its spread, processor seconds per
GiB (of the client alone), peak memory, and the speed as a ratio of ours. Clients that are not
installed are left out, and said so. Put `--dir` on a memory file system to measure the clients
rather than the disk; ours flushes what it journals, the others do not.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.manifest import Manifest, ManifestFile
from agent.store import Partial, Store
from agent.transfer import Proxies, RateLimit, SourceUrl, Transfer, TransferOptions
from agent.transfer.blob import BlobDownload
from agent.transfer.http import HttpClient
from agent.transfer.http_source import HttpSource
from agent.transfer.pieces import InOrder

_COMMIT = "c" * 40
_CONFIG = """
worker_processes 2; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 256; }}
http {{
  access_log off; sendfile on; etag off; keepalive_requests 1000000;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{
    listen 127.0.0.1:{plain}; {tls}
    add_header ETag '"{sha256}"'; add_header X-Repo-Commit {commit};
    add_header X-Linked-Size {size}; add_header X-Linked-Etag '"{sha256}"';
    location = /model.gguf {{ alias {folder}/model.gguf; }}
    location = /o/r/resolve/main/model.gguf {{ alias {folder}/model.gguf; }}
    location = /throttled/model.gguf {{ alias {folder}/model.gguf; limit_rate 20m; }}
    location = /throttled/o/r/resolve/main/model.gguf {{
      alias {folder}/model.gguf; limit_rate 20m;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Place:
    """The file as one kind of source offers it."""

    name: str
    base: str
    certificate: Path | None = None

    @property
    def url(self) -> str:
        """The file's address."""
        return f"{self.base}/model.gguf"


@dataclass(frozen=True)
class Client:
    """A program that downloads; `command` may use the environment it is given."""

    name: str
    verifies: bool
    command: Callable[[Place, Path], list[str]]


@dataclass(frozen=True)
class Run:
    """What one process took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Result:
    """One client at one place; medians, and the slowest and fastest round."""

    place: str
    verified: bool
    client: str
    gb_per_second: float
    slowest: float
    fastest: float
    ratio_to_ours: float
    cpu_seconds_per_gib: float
    peak_mib: float


class Silent:
    """A log for nobody."""

    def info(self, event: str, **fields: object) -> None:
        """See `Log`."""

    def warning(self, event: str, **fields: object) -> None:
        """See `Log`."""
        print(event, fields, file=sys.stderr)


def fetch(url: str, size: int, sha256: str, folder: Path, verified: bool, cafile: str) -> None:
    """Our engine, in a process of its own: whole transfers, or unverified one file."""
    tls = ssl.create_default_context(cafile=cafile) if cafile else None
    options = TransferOptions(proxies=Proxies(), tls=tls)
    if verified:
        file = ManifestFile("model.gguf", size, sha256, url)
        manifest = Manifest("hf/o/r/model.gguf", "o/r", "main", _COMMIT, "m", (file,))
        store = Store(folder / "hub", folder / "state")
        Transfer(manifest, store, options, RateLimit(), lambda f: SourceUrl(f.url), Silent()).run()
        return
    partial = Partial(folder / "model.part", size, sha256)
    source = HttpSource(
        HttpClient(options.proxies, tls, 10.0), lambda: SourceUrl(url), size=size, sha256=sha256
    )
    schedule = InOrder(source, partial.missing(), size, options.piece_bytes, options.connections)
    BlobDownload(partial, schedule, options, RateLimit(), Silent(), verify=False).run()
    partial.close()


def clients(size: int, sha256: str) -> list[Client]:
    """Ours first, then what is installed."""

    def ours(verified: bool) -> Callable[[Place, Path], list[str]]:
        return lambda place, folder: [
            sys.executable, "-m", "bench.download", "--fetch", place.url, str(size), sha256,
            str(folder), "verified" if verified else "", str(place.certificate or ""),
        ]  # fmt: skip

    def curl(place: Place, folder: Path) -> list[str]:
        trust = ["--cacert", str(place.certificate)] if place.certificate else []
        return ["curl", "-sS", "--fail", *trust, "-o", str(folder / "f"), place.url]

    def aria2(*extra: str) -> Callable[[Place, Path], list[str]]:
        return lambda place, folder: [
            "aria2c", "-q", "-x8", "-s8", "--file-allocation=falloc", *extra,
            *([f"--ca-certificate={place.certificate}"] if place.certificate else []),
            "-d", str(folder), "-o", "f", place.url,
        ]  # fmt: skip

    def hf(place: Place, folder: Path) -> list[str]:
        return [
            "env", f"HF_ENDPOINT={place.base}", f"HF_HOME={folder}/home", "HF_HUB_DISABLE_XET=1",
            "HF_HUB_DISABLE_TELEMETRY=1", "HF_HUB_DISABLE_PROGRESS_BARS=1",
            f"SSL_CERT_FILE={place.certificate or ''}",
            str(Path(sys.executable).with_name("hf")), "download", "o/r", "model.gguf",
        ]  # fmt: skip

    def then_sum(first: Callable[[Place, Path], list[str]]) -> Callable[[Place, Path], list[str]]:
        script = 'folder=$1; shift; "$@" >&2 && find -L "$folder" -type f -size +1M -print0 |'
        script += " head -z -n 1 | xargs -0 sha256sum | grep -q " + sha256
        return lambda place, folder: ["sh", "-c", script, "-", str(folder), *first(place, folder)]

    found = [Client("llm-router", False, ours(False)), Client("llm-router", True, ours(True))]
    if shutil.which("curl"):
        found.append(Client("curl", False, curl))
        found.append(Client("curl, sha256sum", True, then_sum(curl)))
    if shutil.which("aria2c"):
        found.append(Client("aria2c -x8", False, aria2()))
        found.append(Client("aria2c -x8 --checksum", True, aria2(f"--checksum=sha-256={sha256}")))
    if Path(sys.executable).with_name("hf").exists():
        found.append(Client("hf download", False, hf))
        found.append(Client("hf download, sha256sum", True, then_sum(hf)))
    return found


def measure(command: list[str]) -> Run:
    """Runs one process to its end. Raises `SystemExit` when it fails."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    complaint = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if status != 0:
        raise SystemExit(f"{command} failed: {complaint.decode()[-500:]}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


@contextmanager
def serving(folder: Path, size: int, sha256: str) -> Iterator[list[Place]]:
    """Serves with nginx the file in `folder`."""
    ports = free_ports(2)
    certificate = make_certificate(folder)
    tls = ""
    if certificate is not None:
        tls = f"listen 127.0.0.1:{ports[1]} ssl; ssl_certificate {certificate};"
        tls += f" ssl_certificate_key {folder}/key.pem;"
    config = folder / "nginx.conf"
    config.write_text(
        _CONFIG.format(
            folder=folder, plain=ports[0], tls=tls, sha256=sha256, size=size, commit=_COMMIT
        )
    )
    nginx = subprocess.Popen(["nginx", "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        wait_for_port(ports[0])
        plain = f"http://127.0.0.1:{ports[0]}"
        places = [Place("plain", plain)]
        if certificate is not None:
            places.append(Place("TLS", f"https://127.0.0.1:{ports[1]}", certificate))
        yield [*places, Place("throttled", f"{plain}/throttled")]
    finally:
        nginx.send_signal(signal.SIGTERM)
        nginx.wait()


def make_certificate(folder: Path) -> Path | None:
    """A self-signed certificate for 127.0.0.1; None without openssl."""
    if shutil.which("openssl") is None:
        return None
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / "cert.pem"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def wait_for_port(port: int) -> None:
    """Returns once somebody listens. Raises `SystemExit` after 10 s."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("nginx did not start")


def compare(
    place: Place, verified: bool, contestants: list[Client], folder: Path, size: int, rounds: int
) -> list[Result]:
    """Interleaved rounds, in another order each time."""
    runs: dict[str, list[Run]] = {client.name: [] for client in contestants}
    order = list(contestants)
    for number in range(rounds):
        random.Random(number).shuffle(order)
        for client in order:
            target = folder / "target"
            target.mkdir()
            runs[client.name].append(measure(client.command(place, target)))
            shutil.rmtree(target)
    own = speeds(runs[contestants[0].name], size)
    return [result(place, verified, name, taken, size, own) for name, taken in runs.items()]


def speeds(runs: list[Run], size: int) -> list[float]:
    """GB/s of each round."""
    return [size / run.seconds / 1e9 for run in runs]


def result(
    place: Place, verified: bool, name: str, runs: list[Run], size: int, own: list[float]
) -> Result:
    """The medians of one client."""
    speed = speeds(runs, size)
    middle = statistics.median(speed)
    return Result(
        place.name, verified, name,
        round(middle, 3), round(min(speed), 3), round(max(speed), 3),
        round(middle / statistics.median(own), 3),
        round(statistics.median(run.cpu_seconds for run in runs) / (size / 2**30), 2),
        round(max(run.peak_bytes for run in runs) / 2**20, 1),
    )  # fmt: skip


def show(results: list[Result]) -> None:
    """A table for a person."""
    for row in results:
        kind = "verified  " if row.verified else "unverified"
        print(
            f"{row.place:<24} {kind} {row.client:<24} {row.gb_per_second:6.3f} GB/s "
            f"({row.slowest:.3f}-{row.fastest:.3f})  {row.ratio_to_ours:5.2f} x ours  "
            f"{row.cpu_seconds_per_gib:5.2f} CPU s/GiB  {row.peak_mib:6.1f} MiB"
        )


def write_file(path: Path, size: int) -> str:
    """Random bytes; returns their SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(size >> 20):
            block = os.urandom(1 << 20)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def main() -> None:
    """Measures and prints."""
    if sys.argv[1:2] == ["--fetch"]:
        url, length, digest, target, verify, cafile = sys.argv[2:]
        fetch(url, int(length), digest, Path(target), bool(verify), cafile)
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--dir", type=Path, help="where to download to; a temporary folder if unset"
    )
    parser.add_argument("--place", action="append", help="only this one: plain, TLS, throttled")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if shutil.which("nginx") is None:
        raise SystemExit("this benchmark needs nginx as its source")
    size = arguments.size_mib << 20
    results: list[Result] = []
    with tempfile.TemporaryDirectory(dir=arguments.dir) as name:
        folder = Path(name)
        folder.chmod(0o755)
        sha256 = write_file(folder / "model.gguf", size)
        with serving(folder, size, sha256) as places:
            for place in places:
                if arguments.place and place.name not in arguments.place:
                    continue
                for verified in (False, True):
                    chosen = [c for c in clients(size, sha256) if c.verifies is verified]
                    rows = compare(place, verified, chosen, folder, size, arguments.rounds)
                    results += rows
                    if not arguments.json:
                        show(rows)
    if arguments.json:
        print(json.dumps([asdict(row) for row in results], indent=2))


if __name__ == "__main__":
    main()
