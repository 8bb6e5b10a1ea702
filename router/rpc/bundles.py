"""Offline bundles over gRPC: a file's bytes, one message after another."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from blake3 import blake3

from protos.llmrouter.v1 import registration_pb2 as registration
from router.domain.errors import TooManyStreams
from router.domain.models import Model
from router.services.bundles import Bundles

_AT_ONCE = 8

Result = TypeVar("Result")


class BundleStreams:
    """Carries bundles out and in; reading and writing is done in threads, one step at a time.

    So a client that is slow holds nothing but a chunk of memory.
    """

    def __init__(self, bundles: Bundles) -> None:
        """Serves `bundles`."""
        self._bundles = bundles
        self._open = 0

    async def export(
        self, request: registration.ExportModelsRequest
    ) -> AsyncIterator[registration.ExportModelsResponse]:
        """See `ExportModels` in registration.proto."""
        with self._counted():
            export = await _in_thread(lambda: self._bundles.export(request.model_names))
            head = registration.BundleHead(
                size_bytes=export.size_bytes, models=map(_model, export.models)
            )
            yield registration.ExportModelsResponse(head=head)
            digest = blake3()

            def step() -> bytes | None:
                data = next(export.chunks, None)
                if data is not None:
                    digest.update(data)
                return data

            try:
                while (data := await _in_thread(step)) is not None:
                    yield registration.ExportModelsResponse(data=data)
            finally:
                export.close()
            end = registration.BundleEnd(digest=digest.digest())
            yield registration.ExportModelsResponse(end=end)

    async def take_in(
        self, requests: AsyncIterator[registration.ImportModelsRequest]
    ) -> registration.ImportModelsResponse:
        """See `ImportModels` in registration.proto."""
        with self._counted():
            taking = self._bundles.take_in()
            try:
                async for request in requests:
                    data = request.data
                    await _in_thread(lambda data=data: taking.feed(data))  # type: ignore[misc]
                imported = await _in_thread(taking.finish)
            finally:
                await _in_thread(taking.discard)
        return registration.ImportModelsResponse(
            models=[_model(model, known) for model, known in imported.models],
            new_bytes=imported.new_bytes,
        )

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if self._open >= _AT_ONCE:
            raise TooManyStreams(
                f"{_AT_ONCE} bundles are being exported or imported, the limit of this router",
                retry_after=60,
            )
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


async def _in_thread(call: Callable[[], Result]) -> Result:
    """Returns or raises once the call has ended, also when this is cancelled meanwhile."""
    running = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _model(model: Model, known: bool = False) -> registration.BundledModel:
    return registration.BundledModel(
        model_name=model.name,
        total_bytes=model.manifest.total_bytes,
        already_registered=known,
    )
