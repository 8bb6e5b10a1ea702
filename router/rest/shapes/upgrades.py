"""The JSON of newer commits on the Hub. Sizes in bytes."""

from router.rest.shapes.base import Moment, Shape
from router.rest.shapes.models import RegisteredModel
from router.services.upgrades import FileChange, Outdated, OutdatedPage, Upgraded


class FileChangeShape(Shape):
    """One file in two commits; nulls where a commit does not have it."""

    path: str
    old_size_bytes: int | None
    old_sha256: str | None
    new_size_bytes: int | None
    new_sha256: str | None

    @classmethod
    def of(cls, change: FileChange) -> "FileChangeShape":
        """From a change."""
        old, new = change.old, change.new
        return cls(
            path=change.path,
            old_size_bytes=old.size_bytes if old else None,
            old_sha256=old.sha256 if old else None,
            new_size_bytes=new.size_bytes if new else None,
            new_sha256=new.sha256 if new else None,
        )


class OutdatedModel(Shape):
    """A model with a newer commit. `download_bytes`: the changed and added files."""

    name: str
    commit: str
    newest_commit: str
    last_modified: Moment | None
    download_bytes: int
    changes: list[FileChangeShape]

    @classmethod
    def of(cls, found: Outdated) -> "OutdatedModel":
        """From what was found."""
        return cls(
            name=found.model.name,
            commit=found.model.manifest.commit,
            newest_commit=found.newest_commit,
            last_modified=found.last_modified,
            download_bytes=found.download_bytes,
            changes=[FileChangeShape.of(change) for change in found.changes],
        )


class UncheckedModel(Shape):
    """A model for which the question had no answer."""

    name: str
    code: str
    message: str


class OutdatedModels(Shape):
    """What was found out about a page of models; `next_page_token` null at the end."""

    models: list[OutdatedModel]
    unchecked: list[UncheckedModel]
    next_page_token: str | None

    @classmethod
    def of(cls, page: OutdatedPage) -> "OutdatedModels":
        """From a page."""
        return cls(
            models=[OutdatedModel.of(found) for found in page.outdated],
            unchecked=[
                UncheckedModel(name=one.model.name, code=one.error.code, message=one.error.message)
                for one in page.unchecked
            ],
            next_page_token=page.next_token or None,
        )


class UpgradedModel(Shape):
    """A model after its upgrade; `download_bytes`: the changed and added files."""

    model: RegisteredModel
    previous_commit: str
    download_bytes: int
    changes: list[FileChangeShape]
    warnings: list[str]

    @classmethod
    def of(cls, upgraded: Upgraded, hub_url: str) -> "UpgradedModel":
        """From what was done."""
        return cls(
            model=RegisteredModel.of(upgraded.view, hub_url),
            previous_commit=upgraded.previous_commit,
            download_bytes=upgraded.download_bytes,
            changes=[FileChangeShape.of(change) for change in upgraded.changes],
            warnings=list(upgraded.warnings),
        )
