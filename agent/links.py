"""A folder of links into the store, kept as wanted; what others put there is never touched."""

import contextlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from agent.durable import write_durably
from protos.daemon.logs import get_logger

log = get_logger(__name__)

_TEMPORARY = ".llm-router-"


class LinkKind(StrEnum):
    """How a name leads to a content; neither takes space."""

    SYMBOLIC = "symbolic"
    HARD = "hard"  # a symbolic one where the content is on another file system


@dataclass(frozen=True, slots=True)
class _Made:
    """A link that this agent made: to which file, and the file's inode when it is a hard one."""

    target: str
    inode: int  # 0: a symbolic link


class LinkFolder:
    """Names in one folder that lead to files of the store.

    `record` is a file that remembers which names this agent made: only these are ever replaced or
    removed, and only while they are still as it made them. Not safe for several threads.
    """

    def __init__(self, root: Path, record: Path, kind: LinkKind = LinkKind.SYMBOLIC) -> None:
        self._root = root
        self._record = record
        self._kind = kind
        self._made = _read(record, root)
        self._reported: set[str] = set()

    @property
    def made(self) -> dict[str, Path]:
        """The links that this agent has made: name in the folder → file."""
        return {name: Path(links[-1].target) for name, links in self._made.items()}

    def follow(self, wanted: Mapping[str, Path]) -> frozenset[str]:
        """Makes the folder lead to exactly these files: name in it → regular file.

        Each name changes in one step. A name that somebody else took is reported and left alone.
        Returns the names that lead where they should. Raises `OSError` when the folder cannot be
        written.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        self._clean({*wanted, *self._made})
        self._remove(self._made.keys() - wanted.keys())
        right = {name for name, target in wanted.items() if self._put(name, target)}
        self._reported &= wanted.keys()
        return frozenset(right)

    def disown(self, names: Iterable[str]) -> None:
        """Leaves links to others, who have come to need them."""
        kept = {name: made for name, made in self._made.items() if name not in set(names)}
        if kept.keys() != self._made.keys():
            self._save(kept)

    def _put(self, name: str, target: Path) -> bool:
        place = self._root / name
        made = self._made.get(name, ())
        if self._is_own(name):
            if self._leads_to(place, target):
                return True
        elif os.path.lexists(place):
            self._report(name, "somebody else's file has this name; it stays as it is")
            return False
        if not self._folder_is_there(place.parent):
            self._report(name, "somebody else's file stands where its folder should be")
            return False
        temporary = place.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}")
        try:
            link = self._link(target, temporary)
            # Both are known to be ours, whichever of them a crash leaves in place.
            self._save({**self._made, name: (*made, link)})
            temporary.replace(place)
            self._save({**self._made, name: (link,)})
        finally:
            # rename(2) between two names of one file does nothing, and leaves both.
            temporary.unlink(missing_ok=True)
        log.info("link made", link=str(place), file=str(target))
        return True

    def _link(self, target: Path, place: Path) -> _Made:
        if self._kind is LinkKind.HARD:
            with contextlib.suppress(OSError):
                place.hardlink_to(target)
                return _Made(str(target), place.stat().st_ino)
        try:
            place.symlink_to(target)
        except OSError as error:
            raise OSError(
                error.errno,
                f"no link to {target} can be made in {self._root}: {error.strerror or error}; "
                "choose a folder on the models' file system, or on one that has links",
            ) from error
        return _Made(str(target), 0)

    def _folder_is_there(self, folder: Path) -> bool:
        # A link on the way would lead what is made here to somebody else's place.
        root, real = self._root.resolve(), folder.resolve()
        if real != root and root not in real.parents:
            return False
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            return False
        return True

    def _remove(self, names: Iterable[str]) -> None:
        """Removes own links, and the folders that become empty by it."""
        kept = dict(self._made)
        for name in sorted(names):
            place = self._root / name
            if self._is_own(name):
                place.unlink(missing_ok=True)
                log.info("link removed", link=str(place))
                self._remove_empty(place.parent)
            elif os.path.lexists(place):
                log.warning("somebody replaced a link of ours; it stays", link=str(place))
            del kept[name]
        if len(kept) != len(self._made):
            self._save(kept)

    def _remove_empty(self, folder: Path) -> None:
        while folder != self._root:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def _clean(self, names: Iterable[str]) -> None:
        """Removes links whose maker died before it could give them their name."""
        for folder in {(self._root / name).parent for name in names}:
            for leftover in folder.glob(f"{_TEMPORARY}*"):
                leftover.unlink(missing_ok=True)

    def _is_own(self, name: str) -> bool:
        """Whether what has a name now is what was made there."""
        made = self._made.get(name, ())
        place = self._root / name
        try:
            if place.is_symlink():
                return str(place.readlink()) in {link.target for link in made if not link.inode}
            return place.lstat().st_ino in {link.inode for link in made if link.inode}
        except OSError:
            return False

    def _leads_to(self, place: Path, target: Path) -> bool:
        try:
            return place.samefile(target)
        except OSError:
            return False

    def _report(self, name: str, cause: str) -> None:
        if name not in self._reported:
            self._reported.add(name)
            log.error("a link cannot be made", link=str(self._root / name), cause=cause)

    def _save(self, made: Mapping[str, tuple[_Made, ...]]) -> None:
        content = {
            "folder": str(self._root),
            "links": {
                name: [[link.target, link.inode] for link in links] for name, links in made.items()
            },
        }
        write_durably(self._record, json.dumps(content).encode())
        self._made = dict(made)


def _read(record: Path, root: Path) -> dict[str, tuple[_Made, ...]]:
    """What was made in this folder; nothing is known to be ours when the record is damaged."""
    try:
        content = json.loads(record.read_bytes())
        if content["folder"] == str(root):
            return {
                name: tuple(_Made(str(target), int(inode)) for target, inode in links)
                for name, links in content["links"].items()
            }
        log.warning("the links in another folder stay there", folder=str(content["folder"]))
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.error("the record of links is damaged", file=str(record), cause=str(error))
    return {}
