"""Refusals of a folder, as the Hub words them."""

from router.protocol.errors import HubError


def repository_not_found(repo: str) -> HubError:
    """No folder of this name; the real Hub answers 401 to strangers, this one has no accounts."""
    return HubError(404, "RepoNotFound", f'repository "{repo}" is not in the served folder')


def still_reading(repo: str, seconds: int) -> HubError:
    """The digests of a new, large repository are not computed yet."""
    return HubError(
        503,
        None,
        f'"{repo}" is new and its files are still being read; try again in {seconds} s',
        {"Retry-After": str(seconds)},
    )
