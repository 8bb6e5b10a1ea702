"""As much of Ollama as the agent speaks to: it makes models of blobs that are in its folder."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self


class FakeOllama:
    """Serves Ollama's API over a models folder; `models` is its list."""

    def __init__(self, models_dir: Path) -> None:
        self.models: dict[str, dict[str, str]] = {}
        self.calls: list[str] = []
        self._models_dir = models_dir
        ollama = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(length) or b"{}")
                ollama.calls.append(f"{self.command} {self.path}")
                status, content = ollama.answer(f"{self.command} {self.path}", body)
                raw = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_POST = do_DELETE = _answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, call: str, body: dict[str, Any]) -> tuple[int, dict[str, str]]:
        """What Ollama would say."""
        name = body["model"]
        if call == "POST /api/create":
            for digest in body["files"].values():
                blob = self._models_dir / "blobs" / digest.replace(":", "-")
                if not blob.is_file():
                    return 400, {"error": f"blob not found: {digest}"}
            self.make(name, body["files"])
            return 200, {"status": "success"}
        if name not in self.models:
            return 404, {"error": f"model '{name}' not found"}
        if call == "DELETE /api/delete":
            del self.models[name]
            self._manifest(name).unlink()
        return 200, {}

    def make(self, name: str, files: dict[str, str]) -> None:
        """Puts a model on the list, with a manifest that names its blobs."""
        self.models[name] = files
        manifest = self._manifest(name)
        manifest.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_text(json.dumps({"layers": [{"digest": d} for d in files.values()]}))

    def _manifest(self, name: str) -> Path:
        return self._models_dir / "manifests" / "registry.ollama.ai" / name.replace(":", "/")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
