"""From a variant of the Hub to what is registered of it."""

from dataclasses import dataclass

from router.domain.catalog import CatalogRepo, Gating, GgufFacts, Variant
from router.domain.errors import DomainError, HubGated
from router.domain.memory import DEFAULT_CONTEXT, required_memory_bytes
from router.domain.models import Manifest
from router.domain.ports import Catalog


@dataclass(frozen=True, slots=True)
class Pinned:
    """A variant at one commit; memory in bytes, None for what is not GGUF."""

    manifest: Manifest
    facts: GgufFacts | None
    required_memory_bytes: int | None


class Pinning:
    """Pins variants. `context` is the number of tokens for which memory is estimated."""

    def __init__(self, catalog: Catalog, context: int = DEFAULT_CONTEXT) -> None:
        """Reads headers through `catalog`."""
        self._catalog = catalog
        self._context = context

    def pin(self, repo: CatalogRepo, variant: Variant, revision: str) -> Pinned:
        """Pins a variant of `repo` at its commit, which `revision` names now. May ask the Hub.

        Raises `HubGated` when the router may not read its files.
        """
        self._require_access(repo, variant)
        manifest = Manifest.pin(
            model_name=variant.name,
            repo=repo.repo,
            revision=revision,
            commit=repo.commit,
            quantization=variant.quantization,
            files=variant.files,
        )
        if manifest.format != "gguf":
            return Pinned(manifest, None, None)
        facts = self._facts(repo, variant)
        memory = required_memory_bytes(variant.size_bytes, facts, self._context)
        return Pinned(manifest, facts, memory)

    def _require_access(self, repo: CatalogRepo, variant: Variant) -> None:
        # The Hub tells everybody what a gated repository holds, and refuses the files later.
        if repo.gating is Gating.OPEN and not repo.private:
            return
        try:
            self._catalog.file_url(repo.repo, repo.commit, variant.filename, fresh=True)
        except HubGated:
            raise
        except DomainError:
            return

    def _facts(self, repo: CatalogRepo, variant: Variant) -> GgufFacts | None:
        # A header that cannot be read warns (its memory is not known well); it forbids nothing.
        try:
            return self._catalog.facts(repo.repo, repo.commit, variant)
        except HubGated:
            raise
        except DomainError:
            return None
