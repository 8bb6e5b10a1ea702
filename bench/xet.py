"""A file in a Xet store in a folder, and its download by `hf_xet` alone, for `bench.download`.

Run as a program: `store FILE STORE` prints the hash, `fetch STORE HASH SIZE TARGET` downloads. The
store is on the same disk and asked without HTTP, which favours `hf_xet`: nobody serves its bytes.
"""

import importlib
import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = [sys.executable, "-m", "bench.xet"]


@dataclass(frozen=True)
class Stored:
    """A file in a Xet store."""

    store: str
    hash: str
    size: int


def store_file(path: Path, folder: Path) -> Stored | None:
    """Puts a file into a new store in `folder`; None without `hf_xet`.

    In a process of its own: its memory would count as the peak of every later child.
    """
    if importlib.util.find_spec("hf_xet") is None:
        return None
    folder.mkdir()
    store = f"local://{folder}"
    ended = subprocess.run(
        [*_PROGRAM, "store", str(path), store], check=True, stdout=subprocess.PIPE, text=True
    )
    return Stored(store, ended.stdout.strip(), path.stat().st_size)


def command(stored: Stored, target: Path) -> list[str]:
    """The client as a process, as fast as `hf_xet` can be told to be."""
    fast = ["env", "HF_XET_HIGH_PERFORMANCE=1", f"HF_HOME={target.parent}/home"]
    return [*fast, *_PROGRAM, "fetch", stored.store, stored.hash, str(stored.size), str(target)]


def main() -> None:
    """Stores a file, or downloads it."""
    hf_xet = importlib.import_module("hf_xet")
    what, *words = sys.argv[1:]
    if what == "store":
        with hf_xet.XetSession().new_upload_commit(endpoint=words[1]) as commit:
            upload = commit.start_upload_file(words[0])
        print(upload.result().xet_info.hash)
        return
    store, digest, size, target = words[0], words[1], int(words[2]), Path(words[3])
    with hf_xet.XetSession().new_file_download_group(endpoint=store) as group:
        group.start_download_file(hf_xet.XetFileInfo(digest, size), str(target))
    if target.stat().st_size != size:
        raise SystemExit("hf_xet ended without the whole file")


if __name__ == "__main__":
    main()
