"""Shows that real llama.cpp loads and decodes the models that this project makes.

`python -m deploy.demo.llama_check` installs a prebuilt llama.cpp from npm into `.cache/` once
(85 MB; needs node, npm and the network), makes every kind of model, lays them out as a Hugging
Face cache does and as an agent does for `llama-server --models-dir`, and decodes a few tokens with
each. Exit code 0 when every one of them spoke.
"""

import asyncio
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.links import LinkFolder
from agent.manifest import ManifestFile
from agent.store import FileState, Found, Store
from agent.store.loadable import loadable_models
from agent.views import FolderView, llama_server_names
from deploy.demo.models import MIB, QUANTIZATIONS, make_model, make_shards

CHECKOUT = Path(__file__).parents[2]
VERSION = "3.22.1"
_PLATFORMS = {"x86_64": "linux-x64", "aarch64": "linux-arm64"}
_TOKENS = 6


class CannotCheck(Exception):
    """The check itself is not possible here; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What llama.cpp made of one file: tokens, or an error."""

    path: Path
    seconds: float
    type: str
    tokens: tuple[int, ...]
    error: str

    @property
    def spoke(self) -> bool:
        """Whether the model was loaded and decoded to the end."""
        return len(self.tokens) == _TOKENS


def install_llama_cpp(folder: Path) -> Path:
    """Installs the pinned node-llama-cpp into `folder`, unless it is there; returns its module.

    Raises `CannotCheck` without node and npm, for a processor without a prebuilt binary, and when
    npm fails.
    """
    module = folder / "node_modules/node-llama-cpp/dist/index.js"
    binary = _PLATFORMS.get(platform.machine())
    if binary is None:
        raise CannotCheck(f"there is no prebuilt llama.cpp for {platform.machine()}")
    if not shutil.which("node") or not shutil.which("npm"):
        raise CannotCheck("node and npm are needed to fetch and run the prebuilt llama.cpp")
    manifest = module.parents[1] / "package.json"
    if not manifest.exists() or json.loads(manifest.read_bytes())["version"] != VERSION:
        folder.mkdir(parents=True, exist_ok=True)
        packages = [f"node-llama-cpp@{VERSION}", f"@node-llama-cpp/{binary}@{VERSION}"]
        # The optional dependencies are 700 MB of builds for graphics cards.
        options = ["--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund"]
        command = ["npm", "install", "--prefix", str(folder), *options, *packages]
        done = subprocess.run(command, text=True, capture_output=True)
        if done.returncode:
            raise CannotCheck(f"npm could not install llama.cpp:\n{done.stderr.strip()}")
    return module


def decode(module: Path, paths: Sequence[Path]) -> Iterator[Answer]:
    """Has llama.cpp load each file and decode a few tokens; yields as the answers come.

    A file that crashes llama.cpp ends the answers early: the rest is missing.
    """
    script = Path(__file__).with_suffix(".mjs")
    command = ["node", str(script), module.as_uri(), str(_TOKENS), *map(str, paths)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            answer = json.loads(line)
            yield Answer(
                Path(answer["path"]),
                answer.get("milliseconds", 0) / 1000,
                answer.get("type", ""),
                tuple(answer.get("tokens", ())),
                answer.get("error", ""),
            )


def lay_out_cache(cache: Path, repo: str, files: Sequence[Path]) -> list[Path]:
    """Puts files into a Hugging Face cache: blobs by digest, links in a snapshot; returns those."""
    root = cache / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / ("0" * 40)
    for folder in (root / "blobs", root / "refs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    (root / "refs" / "main").write_text(snapshot.name)
    links = []
    for file in files:
        blob = root / "blobs" / sha256(file.read_bytes()).hexdigest()
        shutil.copyfile(file, blob)
        link = snapshot / file.name
        link.symlink_to(Path("../../blobs", blob.name))
        links.append(link)
    return links


def show_to_llama_server(cache: Path, folder: Path) -> None:
    """Keeps `folder` for `llama-server --models-dir` as an agent over this cache does."""
    records = folder.with_name(f"{folder.name}-records")
    store = Store(cache, records)
    for file in store.inventory():
        wanted = ManifestFile(file.path, file.size_bytes, sha256=None, url="")
        store.verify(Found(wanted, FileState.UNVERIFIED, file.location, linked=True))
    view = FolderView(LinkFolder(folder, records / "links.json"), llama_server_names)
    asyncio.run(view.follow(loadable_models(store.inventory())))


def _specimens(folder: Path) -> dict[str, Path]:
    """One file to load for every kind of model: what it is → where it is."""
    files = {
        f"single file, {quantization}": make_model(
            folder / f"tiny-{quantization}.gguf", quantization
        )
        for quantization in QUANTIZATIONS
    }
    shards = make_shards(folder, "sharded-Q8_0")
    single = files["single file, Q8_0"]
    files["3 shards, Q8_0"] = shards[0]
    files["256 MiB, F16"] = make_model(folder / "big-F16.gguf", "F16", size_bytes=256 * MIB)
    files["chat template, Q4_0"] = make_model(folder / "chat-Q4_0.gguf", "Q4_0", chat=True)
    links = lay_out_cache(folder / "hub", "tiny-org/tiny-llama-GGUF", [single, *shards])
    files["HF cache, Q8_0"] = links[0]
    files["HF cache, 3 shards"] = links[1]
    view = folder / "models-dir"
    show_to_llama_server(folder / "hub", view)
    files["--models-dir, Q8_0"] = view / single.name
    files["--models-dir, 3 shards"] = view / "sharded-Q8_0" / shards[0].name
    return files


def main() -> int:
    """Runs the check; returns the exit code: 0 all spoke, 1 some did not, 2 no check possible."""
    console = Console()
    try:
        with console.status("Installing the prebuilt llama.cpp (once)"):
            module = install_llama_cpp(CHECKOUT / ".cache" / "llama.cpp")
    except CannotCheck as problem:
        Console(stderr=True).print(f"llama-check: {problem}", style="red", markup=False)
        return 2
    table = Table("MODEL", "LLAMA.CPP SAYS", "SECONDS", "TOKENS", box=None, pad_edge=False)
    with tempfile.TemporaryDirectory(prefix="llama-check-") as folder:
        with console.status("Making the models"):
            files = _specimens(Path(folder))
        answers: dict[Path, Answer] = {}
        with console.status("Decoding") as status:
            for answer in decode(module, list(files.values())):
                answers[answer.path] = answer
                status.update(f"Decoding: {len(answers)} of {len(files)}")
    for kind, path in files.items():
        answer = answers.get(path) or Answer(path, 0, "", (), "llama.cpp ended before this file")
        words = " ".join(map(str, answer.tokens))
        said = Text(words) if answer.spoke else Text(answer.error or words, style="red")
        table.add_row(kind, answer.type, f"{answer.seconds:.1f}", said)
    console.print(table)
    spoke = sum(answer.spoke for answer in answers.values())
    console.print(f"\n{spoke} of {len(files)} models decoded")
    return 0 if spoke == len(files) else 1


if __name__ == "__main__":
    sys.exit(main())
