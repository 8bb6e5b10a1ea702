"""One model onto this disk: every file found, fetched, verified and committed."""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace

from agent.manifest import Manifest, ManifestFile
from agent.store import (
    BytesFrom,
    Claim,
    Digests,
    FileState,
    Found,
    Origin,
    Partial,
    Store,
    StoreError,
)
from agent.transfer.blob import BlobDownload, Log
from agent.transfer.errors import TransferError, TransferStopped
from agent.transfer.http import HttpClient, Proxies
from agent.transfer.http_source import HttpSource
from agent.transfer.interrupt import Interrupt, Interrupted
from agent.transfer.options import TransferOptions
from agent.transfer.pieces import InOrder, Schedule
from agent.transfer.progress import Speed, TransferProgress, TransferState
from agent.transfer.rate import RateLimit
from agent.transfer.sharing import HubWay, Membership, Swarm
from agent.transfer.source import Source, SourceUrl
from agent.transfer.xet import XET_PIECE_BYTES, XET_STREAMS, XetSource, find_offer

_CLAIM_SECONDS = 0.2
_SAMPLE_SECONDS = 0.25
_LEAST_ROOM_BYTES = 1 << 20  # a full disk has to have so much before it is tried again


class _XetFailed(Exception):
    """What is there stays, and the rest comes by plain HTTP."""


class Transfer:
    """All files of one manifest. `run` blocks; `stop` and `progress` are for other threads.

    Every file is looked for on this disk first. What an earlier run, another model of this node or
    `hf download` left is used after it was verified once.

    It counts as verifying only while no byte of any file is left to fetch. When the disk fills on
    the way it waits for room, unless `TransferOptions.wait_for_room` is false.
    """

    def __init__(
        self,
        manifest: Manifest,
        store: Store,
        options: TransferOptions,
        rate: RateLimit,
        resolve: Callable[[ManifestFile], SourceUrl],
        log: Log,
        swarm: Swarm | None = None,
        hub_rate: RateLimit | None = None,
    ) -> None:
        """`resolve` says where to fetch a file from now; it is asked again after a refusal.

        It is called from several threads, may block, and may raise `TransferError`: a retryable one
        is tried again after a pause, any other ends the transfer. `swarm` are the nodes to share
        with; None: all comes from the Hub. Bytes from the Hub obey `hub_rate` (None: no ceiling)
        besides `rate`, which all obey.
        """
        self._manifest = manifest
        self._store = store
        self._options = options
        self._rate = rate
        self._hub_rate = hub_rate
        self._resolve = resolve
        self._log = log
        self._swarm = swarm
        self._client = HttpClient(options.proxies, options.tls, options.connect_seconds)
        # The router is a neighbour: a proxy for the internet is not the way to it.
        self._near_client = HttpClient(Proxies(), None, options.connect_seconds)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._keep_partial = True
        self._interrupt = Interrupt()  # of the thread that called `run`
        self._without_xet: set[str] = set()  # files that Xet could not bring
        self._settled = BytesFrom()  # of files that are done
        self._held = BytesFrom()  # of the unfinished file, while nothing fetches it
        self._blob: BlobDownload | None = None
        self._unfetched = {file.path for file in manifest.files}
        self._fetching = ""  # the path of the file that `_blob` fetches
        self._state = TransferState.DOWNLOADING
        self._note = ""
        self._remark = ""  # shown while there is no note
        self._shown = BytesFrom()
        self._speed = Speed()
        self._taken_over: dict[str, int] = {}
        self._digests: dict[str, str] = {}

    def run(self) -> None:
        """Returns when every file is verified, durable and visible under its final name.

        Raises `TransferError`, or `TransferStopped` after `stop`. Run it once.
        """
        sampling = threading.Event()
        sampler = threading.Thread(
            target=self._sample, args=(sampling,), name="transfer-speed", daemon=True
        )
        sampler.start()
        try:
            with self._store.space_for(self._manifest, self._options.reserve_bytes):
                self._look()
                for file in self._manifest.files:
                    self._obtain(file)
                self._store.finish(self._manifest)
        except StoreError as error:
            raise TransferError(error.code, error.message, retryable=error.retryable) from error
        except TransferStopped:
            if not self._keep_partial:
                self._store.discard_partials(self._manifest)
            raise
        finally:
            self._client.close()
            self._near_client.close()
            sampling.set()
            sampler.join()

    def stop(self, keep_partial: bool = True) -> None:
        """Makes `run` raise `TransferStopped` within moments, whatever it waits for.

        Without `keep_partial` the disk is freed. Returns at once.
        """
        with self._lock:
            self._keep_partial = self._keep_partial and keep_partial
            self._stop.set()
            blob = self._blob
        self._interrupt.fire("stopped")
        if blob is not None:
            blob.stop()

    def progress(self) -> TransferProgress:
        """A true picture of this moment; cheap."""
        with self._lock:
            blob = self._blob
            state, note = (self._state, self._note) if blob is None else blob.state()
            whole = {self._fetching} if blob and state is TransferState.VERIFYING else set()
            if state is TransferState.VERIFYING and self._unfetched - whole:
                state = TransferState.DOWNLOADING
            now = self._settled + (self._held if blob is None else blob.received())
            if now.total >= self._shown.total:
                self._shown = now
            shown = self._shown
        return TransferProgress(
            state=state,
            received_bytes=shown.total,
            total_bytes=self._manifest.total_bytes,
            bytes_from=shown,
            speed_bps=self._speed.bytes_per_second(self._from_network(shown)),
            note=note or self._remark,
        )

    def digests(self) -> dict[str, str]:
        """The SHA-256 of every file that is done, by path: also of those that had none before."""
        with self._lock:
            return dict(self._digests)

    def _from_network(self, shown: BytesFrom) -> int:
        return max(0, shown.total - shown.disk - sum(self._taken_over.values()))

    def _sample(self, over: threading.Event) -> None:
        while not over.wait(_SAMPLE_SECONDS):
            with self._lock:
                blob = self._blob
                now = self._settled + (self._held if blob is None else blob.received())
            self._speed.sample(self._from_network(now))

    def _look(self) -> None:
        """Finds out, reading no file, of which files bytes have to be fetched."""
        unfetched = {
            found.file.path
            for found in self._store.find(self._manifest)
            if found.state not in (FileState.VERIFIED, FileState.UNVERIFIED)
            and found.partial_bytes < found.file.size_bytes
        }
        with self._lock:
            self._unfetched = unfetched
            self._state = TransferState.DOWNLOADING if unfetched else TransferState.VERIFYING

    def _obtain(self, file: ManifestFile) -> None:
        claim = self._claim(file)
        try:
            found = self._on_disk(file)
            if found is not None:
                self._store.adopt(self._manifest, found)
                self._settle(file, found.bytes_from, found.sha256 or "")
                return
            while True:
                try:
                    self._fetch(file)
                    return
                except _XetFailed:
                    self._without_xet.add(file.path)
                except StoreError as error:
                    if error.code != "disk_full" or not self._options.wait_for_room:
                        raise
                    self._wait_for_room(file, error)
        finally:
            claim.release()

    def _wait_for_room(self, file: ManifestFile, error: StoreError) -> None:
        """Returns when the disk has room for the rest of a file. Raises `TransferStopped`."""
        alone = replace(self._manifest, files=(file,))
        self._log.warning("waiting for room on the disk", code=error.code, reason=error.message)
        while True:
            needed = max(self._store.needed_bytes(alone), _LEAST_ROOM_BYTES)
            free = self._store.free_bytes() - self._options.reserve_bytes
            self._tell(
                TransferState.WAITING,
                f"disk_full: {error.message}; {needed} bytes are needed and {max(0, free)} may be "
                "used; free some space, and this goes on by itself",
            )
            if self._stop.wait(self._options.room_seconds):
                raise TransferStopped
            if free >= needed:
                self._log.info("there is room on the disk again", free_bytes=free)
                return

    def _claim(self, file: ManifestFile) -> Claim:
        """Waits while somebody else on this machine fetches the same content."""
        while (claim := self._store.try_claim(self._manifest, file)) is None:
            self._tell(
                TransferState.WAITING, f'another download on this node fetches "{file.path}"'
            )
            if self._stop.wait(_CLAIM_SECONDS):
                raise TransferStopped
        if self._stop.is_set():
            claim.release()
            raise TransferStopped
        return claim

    def _on_disk(self, file: ManifestFile) -> Found | None:
        """The file's verified content, when it is on this disk already."""
        while True:
            found = self._store.find_file(self._manifest, file, self._options.task_id)
            if found.state is FileState.VERIFIED:
                return found
            if found.state is not FileState.UNVERIFIED:
                return None
            self._tell(TransferState.VERIFYING, f'reading "{file.path}", which is on this disk')
            checked = self._store.verify(found, self._stop.is_set)
            if checked is None:
                raise TransferStopped
            if checked.state is FileState.VERIFIED:
                return checked
            self._log.warning("a file on disk is not the registered one", path=file.path)
            if file.sha256 is None:
                return None

    def _fetch(self, file: ManifestFile) -> None:
        self._tell(TransferState.DOWNLOADING, "")
        resolve, xet = self._ways(file)
        for is_last in (False, True):
            partial = self._store.open_partial(
                self._manifest,
                file,
                self._options.window_bytes,
                reserve_bytes=self._options.reserve_bytes,
            )
            member: Membership | None = None
            held = False
            try:
                self._taken_over.setdefault(file.path, partial.taken_over_bytes)
                http = HttpSource(
                    self._near_client if file.is_from_router else self._client,
                    resolve,
                    size=file.size_bytes,
                    sha256=file.sha256,
                    origin=Origin.ROUTER if file.is_from_router else Origin.HUB,
                )
                source = xet or http
                if not is_last:
                    member = self._join(file, partial, source)
                digests = self._download(file, partial, source, member)
                if self._is_right(file, digests, http.git_object_id):
                    self._store.commit(
                        self._manifest, file, partial, digests, self._options.task_id
                    )
                    held = True
                    self._settle(file, partial.received, digests.sha256)
                    return
                self._log.warning(
                    "a downloaded file has another digest",
                    path=file.path,
                    given_by=["the source", *(member.givers if member is not None else ())],
                )
                partial.discard()
                if partial.received.peers:
                    self._remark = (
                        f'fetching "{file.path}" once more, from the Hub alone: put together with '
                        "pieces of other nodes it was not the registered file"
                    )
            finally:
                if member is not None:
                    member.leave(held=held)
                partial.close()
            if is_last:
                raise TransferError(
                    "digest_mismatch",
                    f'"{file.path}" was fetched twice and its SHA-256 is not the registered one; '
                    "nothing of it was kept",
                    retryable=False,
                )

    def _ways(self, file: ManifestFile) -> tuple[Callable[[], SourceUrl], XetSource | None]:
        """How to learn the file's address, and the Xet source when it is offered and wanted."""
        if (
            file.sha256 is None
            or file.is_from_router
            or file.path in self._without_xet
            or not self._options.xet.wants(file.size_bytes)
        ):
            return lambda: self._resolve(file), None
        try:
            place = self._resolve(file)
        except TransferError:
            return lambda: self._resolve(file), None  # the download tries it again, or fails
        try:
            offer = find_offer(self._client, place, self._interrupt)
        except Interrupted as interrupted:
            raise TransferStopped from interrupted
        known = [place]  # the answer serves plain HTTP too
        xet = None if offer is None else XetSource(offer, file.size_bytes)
        return lambda: known.pop() if known else self._resolve(file), xet

    def _join(self, file: ManifestFile, partial: Partial, source: Source) -> Membership | None:
        """The file's place in the swarm; None for one that is not shared."""
        if self._swarm is None or file.sha256 is None or file.size_bytes == 0:
            return None
        return self._swarm.join(file.sha256, partial, self._hub_way(source))

    def _hub_way(self, source: Source) -> HubWay:
        options = self._options
        if isinstance(source, XetSource):
            piece_bytes = min(options.piece_bytes, XET_PIECE_BYTES)
            return HubWay(source, piece_bytes, XET_STREAMS, most=XET_STREAMS)
        return HubWay(source, options.piece_bytes, options.connections)

    def _download(
        self, file: ManifestFile, partial: Partial, source: Source, member: Membership | None
    ) -> Digests:
        options = self._options
        way = self._hub_way(source)
        schedule: Schedule
        if member is not None:
            schedule = member
        else:
            schedule = InOrder(
                source, partial.missing(), file.size_bytes, way.piece_bytes, way.connections
            )
            if way.most is not None:
                options = replace(options, connections=way.most, max_connections=way.most)
        blob = BlobDownload(
            partial,
            schedule,
            options,
            self._rate,
            self._log,
            hub_rate=self._hub_rate,
            with_git=file.sha256 is None,
        )
        if member is not None:
            member.follow(blob.look_again)
        with self._lock:
            self._unfetched.add(file.path)
            self._fetching = file.path
            self._blob = blob
            stopped = self._stop.is_set()
        if stopped:
            blob.stop()
        try:
            digests = blob.run()
        except (TransferStopped, TransferError, StoreError) as error:
            if self._keep_partial:
                with contextlib.suppress(StoreError):  # the first error is the cause
                    partial.flush()
            if isinstance(error, TransferError) and isinstance(source, XetSource):
                self._log.warning("Xet does not bring it; trying HTTP", reason=error.message)
                raise _XetFailed from error
            raise
        finally:
            if isinstance(source, XetSource):
                source.close()
            with self._lock:
                self._blob = None
                self._held = partial.received
                if partial.received.total == file.size_bytes:
                    self._unfetched.discard(file.path)
                    self._state = TransferState.VERIFYING
        assert digests is not None
        return digests

    def _is_right(self, file: ManifestFile, digests: Digests, git_object_id: str | None) -> bool:
        """Whether the content is the registered one, or, unregistered, the one the Hub names."""
        if file.sha256 is not None:
            return digests.sha256 == file.sha256
        return git_object_id in (None, digests.git_sha1)

    def _settle(self, file: ManifestFile, bytes_from: BytesFrom, sha256: str) -> None:
        with self._lock:
            self._settled = self._settled + bytes_from
            self._held = BytesFrom()
            self._digests[file.path] = sha256
            self._remark = ""

    def _tell(self, state: TransferState, note: str) -> None:
        with self._lock:
            self._state, self._note = state, note
