"""Builds what serves the inference engines of this node from the settings."""

from pathlib import Path

from agent.after_commit import Announcing, Arrivals, Command, LlamaServer
from agent.config import Engines
from agent.handover import Handover, Shown, View
from agent.links import LinkFolder, LinkKind
from agent.ollama import OllamaView
from agent.views import FolderView, llama_server_names, lm_studio_names

ARRIVALS_FILE = "arrivals.json"
VIEWS_FOLDER = "views"


def handover_to(engines: Engines, store: Shown, data_dir: Path) -> Handover:
    """The handover to these engines; what it must remember is kept in `data_dir`."""
    records = data_dir / VIEWS_FOLDER
    records.mkdir(exist_ok=True)
    views: list[View] = []
    if engines.view_llama_server is not None:
        links = LinkFolder(engines.view_llama_server, records / "llama-server.json")
        views.append(FolderView(links, llama_server_names))
    if engines.view_lmstudio is not None:
        links = LinkFolder(engines.view_lmstudio, records / "lmstudio.json")
        views.append(FolderView(links, lm_studio_names))
    if engines.view_ollama is not None:
        folder = engines.view_ollama
        blobs = LinkFolder(folder / "blobs", records / "ollama-blobs.json", LinkKind.HARD)
        record = records / "ollama-models.json"
        views.append(OllamaView(folder, blobs, engines.ollama_url, record))
    announcing: list[Announcing] = []
    if engines.after_commit is not None:
        announcing.append(Command(engines.after_commit, engines.after_commit_seconds))
    server = None if engines.llama_server_url is None else LlamaServer(engines.llama_server_url)
    return Handover(
        store,
        Arrivals(data_dir / ARRIVALS_FILE),
        views=views,
        announcing=announcing,
        llama_server=server,
    )
