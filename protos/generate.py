"""Generates the Python code of the protos beside them: `python -m protos.generate [--check]`.

With `--check` nothing is written; it fails when the committed code is not what would be generated.
"""

import re
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

_ROOT = Path(__file__).parent
_PACKAGE = "llmrouter/v1"
_IMPORT = re.compile(r"^(from|import) llmrouter\.", re.MULTILINE)


def generate(into: Path) -> list[Path]:
    """Writes modules and type stubs below `into`; returns their paths relative to it."""
    sources = sorted(str(path) for path in (_ROOT / _PACKAGE).glob("*.proto"))
    well_known = resources.files("grpc_tools") / "_proto"
    outputs = [f"--{kind}_out={into}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{_ROOT}", f"-I{well_known}"]
    plugins = Path(sys.executable).parent
    named = [f"--plugin={plugins / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    subprocess.run([*command, *named, *outputs, *sources], check=True, stderr=subprocess.DEVNULL)
    made = sorted((into / _PACKAGE).glob("*_pb2*.py*"))
    for path in made:
        # protoc names modules from its own root; ours is the package `protos`.
        path.write_text(_qualified(path.read_text()))
    return [path.relative_to(into) for path in made]


def _qualified(code: str) -> str:
    code = _IMPORT.sub(r"\1 protos.llmrouter.", code)
    return re.sub(r"(?<![\w.\"'/])llmrouter\.v1\.(\w+_pb2)", r"protos.llmrouter.v1.\1", code)


def main() -> None:
    """Generates, or with `--check` compares; exits 1 when the committed code is out of date."""
    with tempfile.TemporaryDirectory() as folder:
        made = generate(Path(folder))
        wanted = {path: (Path(folder) / path).read_bytes() for path in made}
    if "--check" in sys.argv[1:]:
        present = {path.relative_to(_ROOT) for path in (_ROOT / _PACKAGE).glob("*_pb2*.py*")}
        stale = [
            str(path)
            for path in sorted(present | wanted.keys())
            if not (_ROOT / path).exists() or (_ROOT / path).read_bytes() != wanted.get(path)
        ]
        if stale:
            sys.exit(f"out of date, run `make protos`: {', '.join(stale)}")
        return
    for path, code in wanted.items():
        (_ROOT / path).write_bytes(code)


if __name__ == "__main__":
    main()
