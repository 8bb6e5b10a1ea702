"""Reads an offline bundle while it comes; nothing of it counts before all of it was right."""

import hashlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from router.domain.blobs import Intake, KeptBlobs
from router.domain.errors import InsufficientDisk
from router.domain.models import Model
from router.domain.ports import Clock
from router.services import bundle_index, tar
from router.services.bundle_index import INDEX, BadBundle

BLOBS = "blobs/"
_MOST_END_BLOCKS = 256  # tar programs fill up their last record

Check = Callable[[Sequence[Model]], object]
Register = Callable[[Sequence[Model], dict[str, int]], list[bool]]


@dataclass(frozen=True, slots=True)
class Imported:
    """What came in: each model, and whether it was registered before; bytes newly kept."""

    models: tuple[tuple[Model, bool], ...]
    new_bytes: int


@dataclass(frozen=True, slots=True)
class _Want:
    """So many bytes: all at once, or piece by piece as they come."""

    count: int
    whole: bool = True


_Reading = Generator[_Want, memoryview, None]


class Import:
    """One bundle, fed in pieces of any length. For one thread at a time; blocking.

    Ends with `finish`, or, whatever was raised, with `discard`.
    """

    def __init__(self, kept: KeptBlobs, check: Check, register: Register, clock: Clock) -> None:
        """Made by `Bundles.take_in`; nothing is on the disk before the index was read.

        `check` may refuse the models early; `register` registers them in the end.
        """
        self._kept = kept
        self._check = check
        self._register = register
        self._clock = clock
        self._models: tuple[Model, ...] = ()
        self._contents: dict[str, int] = {}
        self._missing: dict[str, int] = {}  # contents that have not come
        self._new_bytes = 0
        self._intake: Intake | None = None
        self._ended = False
        self._buffer = bytearray()
        self._reading = self._bundle()
        self._want = next(self._reading)

    def feed(self, data: bytes) -> None:
        """Takes in the next bytes.

        Raises `BadBundle`, `InsufficientDisk`, `OSError`, and what `check` raises.
        """
        view = memoryview(data)
        while view:
            needed = self._want.count - len(self._buffer)
            part, view = view[:needed], view[needed:]
            if not self._want.whole:
                self._want = self._reading.send(part)
                continue
            self._buffer += part
            if len(self._buffer) == self._want.count:
                unit, self._buffer = self._buffer, bytearray()
                self._want = self._reading.send(memoryview(unit))

    def finish(self) -> Imported:
        """Keeps the contents and registers the models, when the whole bundle came.

        Raises `BadBundle`, `OSError`, and what `register` raises; nothing is kept then.
        """
        if not self._ended or self._buffer or self._intake is None:
            raise BadBundle("the bundle is cut short: copy it again, or export it again")
        known: list[bool] = []
        self._intake.keep(lambda: known.extend(self._register(self._models, self._contents)))
        return Imported(tuple(zip(self._models, known, strict=True)), self._new_bytes)

    def discard(self) -> None:
        """Removes what came in and was not kept."""
        if self._intake is not None:
            self._intake.discard()

    def _bundle(self) -> _Reading:
        """Reads a whole bundle; each `yield` receives what it wants."""
        header = yield from self._header()
        if header is None or header.name != INDEX or header.size > bundle_index.MAX_INDEX_BYTES:
            raise BadBundle(f"it is not a bundle: it does not begin with {INDEX}")
        index = yield _Want(max(header.size, 1))
        self._open(bytes(index))
        yield from self._zeros(header.padding)
        while (header := (yield from self._header())) is not None:
            yield from self._content(header)
        if self._missing:
            raise BadBundle(f"it ends before all files that its {INDEX} names have come")
        yield from self._zeros(tar.BLOCK)
        self._ended = True
        for _ in range(_MOST_END_BLOCKS):
            yield from self._zeros(tar.BLOCK)
        raise BadBundle("more follows its end than any tar program writes")

    def _header(self) -> Generator[_Want, memoryview, tar.Header | None]:
        """The next member, its size also from an extended header; None at the end."""
        try:
            header = tar.read_header(bytes((yield _Want(tar.BLOCK))))
            if header is None or not header.extended:
                return header
            content = yield _Want(header.size + header.padding)
            size = tar.read_extended(bytes(content[: header.size]))
            following = tar.read_header(bytes((yield _Want(tar.BLOCK))))
        except tar.NotOurs as error:
            raise BadBundle(f"it is not a bundle, or damaged: {error}") from None
        if following is None or following.extended:
            raise BadBundle("an extended header stands alone")
        return tar.Header(following.name, size, extended=False)

    def _zeros(self, count: int) -> _Reading:
        if count and any((yield _Want(count))):
            raise BadBundle("it has bytes where a tar file has zeros")

    def _open(self, index: bytes) -> None:
        """Refuses what can be refused before any content has come."""
        models = bundle_index.read(index, self._clock())
        contents = bundle_index.contents(models)
        self._check(models)
        self._new_bytes = sum(
            size for sha256, size in contents.items() if not self._kept.has(sha256)
        )
        free = self._kept.free_bytes()
        if self._new_bytes > free:
            raise InsufficientDisk(
                f"the bundle brings {self._new_bytes} bytes and the disk of the router's data "
                f"folder has {free} free"
            )
        self._models, self._contents, self._missing = models, contents, dict(contents)
        self._intake = self._kept.take_in()

    def _content(self, header: tar.Header) -> _Reading:
        sha256 = header.name.removeprefix(BLOBS)
        if header.name != BLOBS + sha256 or self._missing.pop(sha256, None) != header.size:
            raise BadBundle(
                f"it holds a file that its {INDEX} does not name, or one twice, or of another size"
            )
        assert self._intake is not None
        is_new = not self._kept.has(sha256)
        if is_new:
            self._intake.begin(sha256)
        digest = hashlib.sha256()
        left = header.size
        while left:
            data = yield _Want(left, whole=False)
            left -= len(data)
            digest.update(data)
            if is_new:
                self._intake.write(data)
        if digest.hexdigest() != sha256:
            raise BadBundle(
                f"the file {sha256} is damaged: copy the bundle again, or export it again"
            )
        if is_new:
            self._intake.finish()
        yield from self._zeros(header.padding)
