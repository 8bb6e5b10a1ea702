"""How what the Hub said is written into rows of the catalog's cache: compressed JSON.

A row that cannot be read (of another version, or damaged) is as good as none.
"""

import json
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from router.domain.catalog import Gating, GgufFacts, HubFile, Sort
from router.hub.client import ListedRepo

_VERSION = 1
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, zlib.error)


@dataclass(frozen=True, slots=True)
class ListingKey:
    """What a list of the Hub is asked for by."""

    search: str
    author: str
    sort: Sort

    def text(self) -> str:
        """The key of a row."""
        return json.dumps([self.search, self.author, self.sort.value])


@dataclass(frozen=True, slots=True)
class Chunk:
    """One page of the Hub's list as it was fetched; `cursor` is None when nothing follows.

    `last` is false when the list ends here but was not compared with the Hub's once more.
    """

    repos: tuple[ListedRepo, ...]
    cursor: str | None
    fetched_at: datetime
    last: bool


@dataclass(frozen=True, slots=True)
class GenerationRow:
    """What is kept of a generation beside its chunks."""

    key: ListingKey
    gone: tuple[str, ...]


def write_files(files: Iterable[HubFile]) -> bytes:
    """The files of a commit."""
    return _pack([[f.path, f.size_bytes, f.sha256, f.git_oid] for f in files])


def read_files(body: bytes) -> tuple[HubFile, ...] | None:
    """The files of a commit."""
    try:
        return tuple(HubFile(*fields) for fields in _unpack(body))
    except _DAMAGED:
        return None


def write_chunk(chunk: Chunk) -> bytes:
    """A page of a list."""
    repos = [
        [
            r.repo,
            r.commit,
            r.last_modified.isoformat() if r.last_modified else None,
            r.downloads,
            r.likes,
            r.tags,
            r.gating.value,
            r.private,
            r.pipeline_tag,
            r.license,
        ]
        for r in chunk.repos
    ]
    return _pack([repos, chunk.cursor, chunk.fetched_at.isoformat(), chunk.last])


def read_chunk(body: bytes) -> Chunk | None:
    """A page of a list."""
    try:
        repos, cursor, fetched_at, last = _unpack(body)
        return Chunk(
            tuple(_listed(fields) for fields in repos),
            cursor,
            datetime.fromisoformat(fetched_at),
            last,
        )
    except _DAMAGED:
        return None


def write_generation(row: GenerationRow) -> bytes:
    """What is kept of a generation beside its chunks."""
    return _pack([row.key.search, row.key.author, row.key.sort.value, row.gone])


def read_generation(body: bytes) -> GenerationRow | None:
    """What is kept of a generation beside its chunks."""
    try:
        search, author, sort, gone = _unpack(body)
        return GenerationRow(ListingKey(search, author, Sort(sort)), tuple(gone))
    except _DAMAGED:
        return None


def write_facts(facts: GgufFacts | None) -> bytes:
    """What a header tells, or that it cannot be read."""
    return _pack(None if facts is None else asdict(facts))


def read_facts(body: bytes) -> tuple[GgufFacts | None] | None:
    """What a header tells, in a tuple, so that "cannot be read" differs from no row."""
    try:
        fields = _unpack(body)
        return (None if fields is None else GgufFacts(**fields),)
    except _DAMAGED:
        return None


def _listed(fields: list[Any]) -> ListedRepo:
    repo, commit, modified, downloads, likes, tags, gating, private, pipeline, license_ = fields
    return ListedRepo(
        repo,
        commit,
        datetime.fromisoformat(modified) if modified else None,
        downloads,
        likes,
        tuple(tags),
        Gating(gating),
        private,
        pipeline,
        license_,
    )


def _pack(content: Any) -> bytes:
    text = json.dumps([_VERSION, content], separators=(",", ":"))
    return zlib.compress(text.encode(), 1)


def _unpack(body: bytes) -> Any:
    version, content = json.loads(zlib.decompress(body))
    if version != _VERSION:
        raise ValueError("written by another version")
    return content
