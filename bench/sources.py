"""nginx as the source of a benchmark: plain, over TLS, throttled, far away, and with many files."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.xet import Stored, store_file

_COMMIT = "c" * 40
_MANY = 200
_MANY_BYTES = 256 << 10
_DELAY_MS, _LOSS_PERCENT = 80, 0.1
_NEAR, _FAR = "10.213.77.1", "10.213.77.2"
_CONFIG = """
worker_processes 2; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 256; }}
http {{
  access_log off; sendfile on; etag off; keepalive_requests 1000000;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{
    listen {address}:{port}; {tls}
    location /many/ {{ root {root}; }}
    {locations}
  }}
}}
"""
_LOCATION = """
    location = {base}/{name} {{ alias {path}; {limit} {fields} }}
    location = {base}/o/r/resolve/main/{name} {{ alias {path}; {limit} {fields} }}
"""


@dataclass(frozen=True)
class File:
    """One file of random bytes."""

    path: Path
    size: int
    sha256: str


@dataclass(frozen=True)
class Place:
    """Files as one kind of source offers them."""

    name: str
    base: str
    files: tuple[File, ...]
    certificate: Path | None = None
    xet: Stored | None = None

    @property
    def size(self) -> int:
        """Of all files."""
        return sum(file.size for file in self.files)

    def url(self, file: File) -> str:
        """A file's address."""
        return f"{self.base}/{file.path.name}"


def make_file(path: Path, size: int) -> File:
    """Writes random bytes."""
    digest = hashlib.sha256()
    with path.open("wb") as target:
        left = size
        while left:
            block = os.urandom(min(left, 1 << 20))
            digest.update(block)
            target.write(block)
            left -= len(block)
    return File(path, size, digest.hexdigest())


@contextmanager
def places(folder: Path, big_bytes: int, small_bytes: int) -> Iterator[list[Place]]:
    """Every kind of source that this machine can be; says on stderr what is left out, and why."""
    (folder / "big").mkdir()
    (folder / "small").mkdir()
    (folder / "many").mkdir()
    big = make_file(folder / "big" / "model.gguf", big_bytes)
    small = make_file(folder / "small" / "model.gguf", small_bytes)
    many = tuple(make_file(folder / "many" / f"{n}.gguf", _MANY_BYTES) for n in range(_MANY))
    certificate = _make_certificate(folder)
    with ExitStack() as stack:
        port, tls_port = _free_ports(2)
        tls = ""
        if certificate is not None:
            tls = f"listen 127.0.0.1:{tls_port} ssl; ssl_certificate {certificate};"
            tls += f" ssl_certificate_key {folder}/key.pem;"
        stack.enter_context(_nginx(folder, "127.0.0.1", port, tls, big, small))
        plain = f"http://127.0.0.1:{port}"
        xet = store_file(big.path, folder / "xet")
        if xet is None:
            print("the Xet row is left out: hf_xet is not installed", file=sys.stderr)
        found = [Place("plain", plain, (big,), xet=xet)]
        if certificate is not None:
            found.append(Place("TLS", f"https://127.0.0.1:{tls_port}", (big,), certificate))
        else:
            print("TLS is left out: openssl is not installed", file=sys.stderr)
        found.append(Place("20 MB/s per connection", f"{plain}/throttled", (small,)))
        found.append(Place(f"{_MANY} small files", f"{plain}/many", many))
        far = stack.enter_context(_far_away(folder, big, small))
        if far is not None:
            name = f"{_DELAY_MS} ms, {_LOSS_PERCENT} % loss"
            found.append(Place(name, f"http://{_FAR}:{far}", (small,)))
        yield found


@contextmanager
def _nginx(
    folder: Path, address: str, port: int, tls: str, big: File, small: File, *prefix: str
) -> Iterator[None]:
    own = folder / f"nginx-{address}"
    own.mkdir()
    throttled = _locations("/throttled", small, "limit_rate 20m;")
    locations = _locations("", small if prefix else big, "") + throttled
    config = own / "nginx.conf"
    config.write_text(
        _CONFIG.format(
            folder=own, root=folder, address=address, port=port, tls=tls, locations=locations
        )
    )
    process = subprocess.Popen([*prefix, "nginx", "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        _wait_for(address, port)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _locations(base: str, file: File, limit: str) -> str:
    fields = f"add_header ETag '\"{file.sha256}\"'; add_header X-Linked-Etag '\"{file.sha256}\"';"
    fields += f" add_header X-Linked-Size {file.size}; add_header X-Repo-Commit {_COMMIT};"
    return _LOCATION.format(
        base=base, name=file.path.name, path=file.path, limit=limit, fields=fields
    )


@contextmanager
def _far_away(folder: Path, big: File, small: File) -> Iterator[int | None]:
    """A second nginx in a network namespace of its own, behind a slow and lossy line (netem)."""
    if shutil.which("ip") is None or shutil.which("tc") is None:
        print("the far place is left out: it needs ip and tc (iproute2)", file=sys.stderr)
        yield None
        return
    space = f"bench-{os.getpid()}"
    near, far = f"bn{os.getpid()}", f"bf{os.getpid()}"
    inside = ("ip", "netns", "exec", space)
    netem = f"delay {_DELAY_MS}ms loss {_LOSS_PERCENT}% limit 100000".split()
    steps = [
        ["ip", "netns", "add", space],
        ["ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", space],
        ["ip", "addr", "add", f"{_NEAR}/30", "dev", near],
        ["ip", "link", "set", near, "up"],
        [*inside, "ip", "addr", "add", f"{_FAR}/30", "dev", far],
        [*inside, "ip", "link", "set", far, "up"],
        [*inside, "tc", "qdisc", "add", "dev", far, "root", "netem", *netem],
    ]
    try:
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                why = done.stderr.strip()
                print(f"the far place is left out: {' '.join(step)}: {why}", file=sys.stderr)
                yield None
                return
        with _nginx(folder, _FAR, 8080, "", big, small, *inside):
            yield 8080
    finally:
        subprocess.run(["ip", "link", "del", near], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)


def _make_certificate(folder: Path) -> Path | None:
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


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def _wait_for(address: str, port: int) -> None:
    """Returns once somebody listens. Raises `SystemExit` after 10 s."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection((address, port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("nginx did not start")
