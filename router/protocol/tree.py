"""Files and folders of a commit as the Hub's tree and paths-info answers write them."""

import json
from typing import Any

from router.protocol.commits import Commit, Entry, git_oid


def file_info(entry: Entry) -> dict[str, Any]:
    """A file as tree and paths-info answer it."""
    info: dict[str, Any] = {
        "type": "file",
        "path": entry.name,
        "size": entry.size,
        "oid": entry.oid,
    }
    if entry.lfs is not None:
        info["lfs"] = {"oid": entry.sha256, **entry.lfs}
    return info


def sibling(entry: Entry, *, with_blob: bool) -> dict[str, Any]:
    """A file as a repository's info answers it."""
    if not with_blob:
        return {"rfilename": entry.name}
    info: dict[str, Any] = {"rfilename": entry.name, "size": entry.size, "blobId": entry.oid}
    if entry.lfs is not None:
        info["lfs"] = {"sha256": entry.sha256, **entry.lfs}
    return info


def tree(commit: Commit, folder: str, *, recursive: bool) -> list[dict[str, Any]] | None:
    """What lies in a folder ("" is the root), by path; None when there is no such folder.

    Recursive answers hold every folder below, too, as the Hub's do.
    """
    prefix = f"{folder}/" if folder else ""
    found: dict[str, dict[str, Any]] = {}
    for entry in commit.entries:
        if not entry.name.startswith(prefix):
            continue
        parts = entry.name.removeprefix(prefix).split("/")
        for depth in range(1, len(parts) if recursive else min(2, len(parts))):
            path = prefix + "/".join(parts[:depth])
            if path not in found:
                found[path] = _folder_info(commit, path)
        if recursive or len(parts) == 1:
            found[entry.name] = file_info(entry)
    if not found:
        return None
    return [found[path] for path in sorted(found)]


def path_info(commit: Commit, path: str) -> dict[str, Any] | None:
    """The file or folder of this path; None when there is none."""
    entry = commit.by_name.get(path)
    if entry is not None:
        return file_info(entry)
    if any(other.name.startswith(f"{path}/") for other in commit.entries):
        return _folder_info(commit, path)
    return None


def with_last_commit(info: dict[str, Any], commit: Commit, date: str) -> dict[str, Any]:
    """The info as `expand=true` asks for it: every file came with the commit that shows it."""
    return info | {"lastCommit": {"id": commit.id, "title": "what is served", "date": date}}


def _folder_info(commit: Commit, path: str) -> dict[str, Any]:
    # Named by its content, like a git tree, so that it changes when something below it does.
    inside = [
        [entry.name, entry.oid] for entry in commit.entries if entry.name.startswith(f"{path}/")
    ]
    return {
        "type": "directory",
        "path": path,
        "size": 0,
        "oid": git_oid(json.dumps(inside).encode()),
    }
