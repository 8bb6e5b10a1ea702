"""Shows that llama.cpp's own downloader (`-hf`) gets models from the router's `/hub`.

`python -m deploy.demo.llama_hub_check` installs xllamacpp, Python bindings that carry a prebuilt
llama.cpp, from PyPI into `.cache/` once (80 MB; needs pip and the network), starts a hub, a router
and a node, registers a model that no node holds, and lets llama.cpp read the arguments
`llama-server -hf OWNER/REPO:QUANT` with `HF_ENDPOINT` set to the router. Exit code 0 when the file
lies in llama.cpp's cache with the registered SHA-256.
"""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

from deploy.demo.processes import Daemons
from deploy.demo.tiny_llama import make_model

CHECKOUT = Path(__file__).parents[2]
VERSION = "2026.10.11549"  # llama.cpp b11549
_REPO = "demo/tiny-GGUF"
_FILE = "tiny-Q8_0.gguf"
_SCRIPTS = Path(sys.executable).parent

# The bindings offer no call for it, but export llama.cpp's function that reads a command line, and
# fetches what it names. Its `common_params` are a part of the Python object: they begin with
# `n_predict`, which is found by its value. 4 is LLAMA_EXAMPLE_SERVER.
_CHILD = """
import ctypes, glob, os, sys, xllamacpp
library = ctypes.CDLL(glob.glob(os.path.dirname(xllamacpp.__file__) + "/*.so")[0])
parse = library["_Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E"]
params = xllamacpp.CommonParams()
params.n_gpu_layers = -1
params.n_predict = -123456
words = ctypes.cast(id(params), ctypes.POINTER(ctypes.c_int32))
start = next(4 * at for at in range(2, 16) if words[at] == -123456)
given = [b"llama-server", b"-hf", sys.argv[1].encode()]
parse.restype = ctypes.c_bool
parse.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
argv = (ctypes.c_char_p * (len(given) + 1))(*given, None)
assert parse(len(given), argv, id(params) + start, 4, None)
print(params.model.path)
"""


def install(folder: Path) -> Path:
    """Installs the bindings into `folder`, unless they are there; where to import them from."""
    place = folder / f"xllamacpp-{VERSION}"
    if not place.exists():
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
                *("--target", str(place), f"xllamacpp=={VERSION}"),
            ],
            check=True,
        )
    return place


def download(bindings: Path, endpoint: str, cache: Path, name: str) -> Path:
    """Lets llama.cpp fetch what `-hf name` means; where it says that the model is."""
    environment = {
        "PYTHONPATH": str(bindings),
        "HF_ENDPOINT": endpoint,
        "LLAMA_CACHE": str(cache),
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, name],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"llama.cpp fetched nothing:\n{done.stderr[-2000:]}")
    return Path(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Runs the check."""
    bindings = install(CHECKOUT / ".cache")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "catalog" / _REPO / _FILE
        file.parent.mkdir(parents=True)
        make_model(file, "Q8_0", size_bytes=8 << 20)
        wanted = hashlib.sha256(file.read_bytes()).hexdigest()
        with Daemons(folder, {"NO_PROXY": "127.0.0.1"}) as daemons:
            endpoint = _site(daemons, folder)
            found = download(bindings, endpoint, folder / "cache", f"{_REPO}:Q8_0")
            same = hashlib.sha256(found.read_bytes()).hexdigest() == wanted
    print(f"{'right' if same else 'WRONG'}: llama.cpp -hf {_REPO}:Q8_0 from {endpoint}")
    raise SystemExit(0 if same else 1)


def _site(daemons: Daemons, folder: Path) -> str:
    """Starts everything and registers the model; the endpoint for clients."""
    hub = daemons.start(
        "hub", [str(_SCRIPTS / "llm-router-hub"), "--port", "0", str(folder / "catalog")]
    )
    (hub_at,) = hub.addresses("http")
    router = daemons.start(
        "router",
        [
            *(str(_SCRIPTS / "llm-router-server"), "--http-port", "0", "--grpc-port", "0"),
            *("--data-dir", str(folder / "router"), "--hub-url", f"http://{hub_at}"),
        ],
    )
    http_at, grpc_at = router.addresses("http", "grpc")
    agent = daemons.start(
        "agent",
        [
            *(str(_SCRIPTS / "llm-router-agent"), "--router", grpc_at, "--name", "node"),
            *("--data-dir", str(folder / "agent"), "--models-dir", str(folder / "models")),
        ],
    )
    agent.addresses()
    told = {"repo": _REPO, "filename": _FILE}
    httpx.post(f"http://{http_at}/api/models/register", json=told, timeout=30).raise_for_status()
    return f"http://{http_at}/hub"


if __name__ == "__main__":
    main()
