"""The four programs as the demo sees them, for one run: they pretend, over one shared folder.

The name of the script says which one it is. `DEMO_FAULT` in the environment names what goes wrong.
A "download" copies from the hub's folder into the nodes' caches.
"""

import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

PROGRAMS = ("llm-router", "llm-router-agent", "llm-router-hub", "llm-router-server")
COMMIT = "c" * 40
FAULT = os.environ.get("DEMO_FAULT", "")
RUN = Path(os.environ.get("HF_HOME", "")).parent


def answer_http() -> str:
    """Answers `/v1/models` with what was registered, from now on; returns the address."""
    # Imported here, because the other programs start three times as fast without it.
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Models(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            lines = (RUN / "registered").read_text().splitlines()
            if FAULT == "not listed":
                lines = lines[:1]
            data = [{"id": line, "ready": FAULT != "not ready"} for line in lines]
            body = json.dumps({"object": "list", "data": data}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Models)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"127.0.0.1:{server.server_address[1]}"


def note_pid() -> None:
    """Lets the test know of this process."""
    with (RUN / "pids").open("a") as pids:
        pids.write(f"{os.getpid()}\n")


def serve(program: str, arguments: list[str]) -> None:
    """A daemon: writes its ready file, and ends with SIGTERM."""
    print(f"{program} begins, pid {os.getpid()}", flush=True)
    if f"{program} dies" == FAULT:
        sys.exit("the disk is on fire")
    note_pid()
    address = answer_http() if program == "llm-router-server" else "127.0.0.1:9"
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    ready = Path(arguments[arguments.index("--ready-file") + 1])
    partial = ready.with_suffix(".tmp")
    kinds = {"llm-router-server": ("http", "grpc"), "llm-router-agent": ("peer",)}
    partial.write_text(json.dumps(dict.fromkeys(kinds.get(program, ("http",)), address)))
    partial.rename(ready)
    stop.wait()
    sys.exit(3 if f"{program} ends badly" == FAULT else 0)


def command(arguments: list[str]) -> None:
    """The CLI: as much of it as the demo calls."""
    match arguments:
        case ["node", "list", "-q"]:
            print("node-1\nnode-2\nnode-3")
        case ["model", "add", alias]:
            name = files_of(alias)[0].relative_to(RUN / "catalog").as_posix()
            with (RUN / "registered").open("a") as registered:
                registered.write(f"hf/{name}\n")
        case ["model", "download", alias, "--all"]:
            if FAULT == "download hangs":
                note_pid()
                (RUN / "hangs").touch()
                threading.Event().wait()
            for node in ("node-1", "node-2", "node-3"):
                deliver(alias, node)
        case ["status"] if FAULT == "status fails":
            sys.exit(5)
        case _:
            print("pretending", *arguments)


def files_of(alias: str) -> list[Path]:
    """The files that the alias means."""
    repo, _, quantization = alias.partition(":")
    return sorted((RUN / "catalog" / repo).rglob(f"*-{quantization}*.gguf"))


def deliver(alias: str, node: str) -> None:
    """Copies a model into the cache of a node."""
    repo = alias.partition(":")[0]
    cache = RUN / node / "models" / f"models--{repo.replace('/', '--')}"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(COMMIT)
    for file in files_of(alias):
        there = cache / "snapshots" / COMMIT / file.relative_to(RUN / "catalog" / repo)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, there)
        if f"one bit of {there.name} flips on {node}" == FAULT:
            content = bytearray(there.read_bytes())
            content[-1] ^= 1
            there.write_bytes(content)
        if f"{there.name} is missing on {node}" == FAULT:
            there.unlink()


if __name__ == "__main__":
    program = Path(sys.argv[0]).name
    if program == "llm-router":
        command(sys.argv[1:])
    else:
        serve(program, sys.argv[1:])
