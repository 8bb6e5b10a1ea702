"""A folder `owner/repo/…files` as repositories with commits.

`main` is what the folder holds now. A commit's id is computed from names and digests, so the same
content is the same commit on every machine, and a changed folder is a new commit. Commits that
were seen are remembered: a file of an older commit can be had as long as its content still lies
somewhere in its repository.
"""

import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from protos import names
from protos.daemon.logs import get_logger
from router.hosting.digests import Digest, FoundFile, save_json
from router.protocol.commits import Commit, Entry, commit_of

log = get_logger(__name__)

STATE_FOLDER = ".llm-router-hub"
_UNFINISHED = (".incomplete", ".part", ".partial", ".tmp", ".crdownload", ".aria2", "~")
_VISIBLE_DOTFILES = frozenset({".gitattributes", ".gitignore"})
_MAX_DEPTH = 32
_MAX_COMMITS = 50  # remembered for each repository


@dataclass(frozen=True, slots=True)
class Scan:
    """The files of one repository at one look, by name."""

    repo: str
    files: tuple[FoundFile, ...]

    @property
    def modified_ns(self) -> int:
        """When the newest file was written (Unix time)."""
        return max(file.mtime_ns for file in self.files)

    @property
    def created_ns(self) -> int:
        """When the oldest file was written (Unix time)."""
        return min(file.mtime_ns for file in self.files)


class Folder:
    """Looks at the served folder, anew each time; nothing outside it is ever found.

    Links are followed inside the folder only. Hidden files and those that download programs and
    editors have not finished are passed over. Blocking.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve(strict=True)

    def repositories(self) -> list[Scan]:
        """All repositories with at least one file, by name."""
        found = []
        for owner, owner_folder in self._folders(str(self._root)):
            for name, folder in self._folders(owner_folder):
                repo = f"{owner}/{name}"
                if _is_repository(repo) and (files := self._files(folder)):
                    found.append(Scan(repo, files))
        return sorted(found, key=lambda scan: scan.repo)

    def scan(self, repo: str) -> Scan | None:
        """The repository's files; None when there is no such repository."""
        if not _is_repository(repo):
            return None
        folder = self._inside(str(self._root / repo))
        files = self._files(folder) if folder is not None else ()
        return Scan(repo, files) if files else None

    def _folders(self, parent: str) -> Iterator[tuple[str, str]]:
        """The folders in a folder: their names, and where they really lie."""
        for entry in _entries(parent):
            if (folder := self._real(entry)) is not None and entry.is_dir():
                yield entry.name, folder

    def _files(self, folder: str) -> tuple[FoundFile, ...]:
        return tuple(sorted(self._walk(folder, "", (folder,)), key=lambda file: file.name))

    def _walk(self, folder: str, prefix: str, above: tuple[str, ...]) -> Iterator[FoundFile]:
        for entry in _entries(folder):
            name = f"{prefix}{entry.name}"
            if not _is_served(entry.name) or not _is_valid(name):
                continue
            path = self._real(entry)
            if path is None:
                continue
            try:
                if entry.is_dir():
                    if path not in above and len(above) < _MAX_DEPTH:
                        yield from self._walk(path, f"{name}/", (*above, path))
                elif entry.is_file():
                    stat = entry.stat()
                    yield FoundFile(name, path, stat.st_size, stat.st_mtime_ns, stat.st_ino)
            except OSError as error:
                log.debug("a file vanished while looking", path=path, error=error)

    def _real(self, entry: os.DirEntry[str]) -> str | None:
        return self._inside(entry.path) if entry.is_symlink() else entry.path

    def _inside(self, path: str) -> str | None:
        """Where the path really leads; None when that is outside the folder or nowhere."""
        try:
            real = Path(path).resolve(strict=True)
        except (OSError, RuntimeError):
            return None
        return str(real) if real.is_relative_to(self._root) else None


@dataclass(frozen=True)
class Snapshot:
    """A scan with its digests: the present commit, and where its content lies."""

    scan: Scan
    commit: Commit
    content: Mapping[str, FoundFile]  # by oid


def snapshot(scan: Scan, digests: list[Digest]) -> Snapshot:
    """Makes the commit of a scan; `digests` belong to its files, in order."""
    entries = tuple(
        Entry(file.name, file.size, digest.oid, digest.sha256)
        for file, digest in zip(scan.files, digests, strict=True)
    )
    content = {entry.oid: file for entry, file in zip(entries, scan.files, strict=True)}
    return Snapshot(scan, commit_of(entries), content)


class History:
    """The commits that were seen, the newest last; kept in a file, best effort."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._commits: dict[str, dict[str, Commit]] = _load_commits(memory)

    def add(self, repo: str, commit: Commit) -> None:
        """Remembers a commit as the repository's newest; blocks for a small file when it is new."""
        with self._lock:
            commits = self._commits.setdefault(repo, {})
            if commit.id in commits:
                return
            commits[commit.id] = commit
            while len(commits) > _MAX_COMMITS:
                del commits[next(iter(commits))]
            saved = {
                repo: [
                    [[entry.name, entry.size, entry.oid, entry.sha256] for entry in commit.entries]
                    for commit in commits.values()
                ]
                for repo, commits in self._commits.items()
            }
            save_json(self._memory, saved)

    def find(self, repo: str, commit_id: str) -> Commit | None:
        """A commit by its full id."""
        with self._lock:
            return self._commits.get(repo, {}).get(commit_id)


def _load_commits(memory: Path) -> dict[str, dict[str, Commit]]:
    try:
        saved = json.loads(memory.read_text(encoding="utf-8"))
        commits: dict[str, dict[str, Commit]] = {}
        for repo, listed in saved.items():
            seen = [commit_of(tuple(Entry(*row) for row in rows)) for rows in listed]
            commits[repo] = {commit.id: commit for commit in seen}
        return commits
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("the remembered commits cannot be read", path=memory, error=error)
        return {}


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except NotADirectoryError:
        return []
    except OSError as error:
        log.warning("a folder cannot be read", path=folder, error=error)
        return []


def _is_repository(repo: str) -> bool:
    try:
        names.repo_id(repo)
    except names.InvalidName:
        return False
    return True


def _is_served(name: str) -> bool:
    if name.startswith("."):
        return name in _VISIBLE_DOTFILES
    return not name.endswith(_UNFINISHED)


def _is_valid(name: str) -> bool:
    try:
        names.file_path(name)
    except (names.InvalidName, UnicodeEncodeError):
        log.debug("a file's name cannot be served", name=ascii(name))
        return False
    return True
