"""The calls to the Hub, one function each: what is asked, and how answers become values or errors.

The protocol is the Hub's public API (https://huggingface.co/docs/hub/api) as huggingface_hub
speaks it. Calls go through our own connection pool, because the library's waits without limit.
Every answer is bounded in bytes and time, and distrusted in shape.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote, urljoin, urlsplit

import httpx2
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import hf_raise_for_status

from protos import names
from router.domain.catalog import FileUrl, Gating, HubFile, Sort
from router.domain.errors import (
    FileNotInRepo,
    HubGated,
    HubUnavailable,
    NotFound,
    RepoNotFound,
    RevisionNotFound,
)
from router.hub.budget import Budget, CallKind
from router.hub.variants import is_relevant

Query = list[tuple[str, str | int | float | bool | None]]

_EXPAND = (
    "sha",
    "lastModified",
    "downloads",
    "likes",
    "tags",
    "gated",
    "private",
    "pipeline_tag",
)
_SORTS = {
    Sort.TRENDING: "trendingScore",
    Sort.DOWNLOADS: "downloads",
    Sort.LIKES: "likes",
    Sort.LAST_MODIFIED: "lastModified",
}
_SIGNATURES = {"x-amz-signature", "signature", "x-goog-signature", "sig", "token"}
_MAX_TAGS = 200
_MAX_REDIRECTS = 5
_SAFE_REASON = re.compile(r"[^\w .,:;'()/-]")


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one call may take, and how often it is tried; seconds.

    `answer` bounds the time between two signs of life, `whole` one try altogether. `waits` lie
    between tries; only failures that a second try may heal are tried again.
    """

    connect: float = 5.0
    answer: float = 10.0
    whole: float = 30.0
    waits: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an answer may hold at most."""

    body_bytes: int = 64 * 1024 * 1024
    tree_pages: int = 100
    repo_files: int = 20_000


DEFAULT_TIMING = Timing()
DEFAULT_BOUNDS = Bounds()


@dataclass(frozen=True, slots=True)
class ListedRepo:
    """One repository as a listing names it: everything but its files.

    `commit` is "" when a listing does not tell it (a Hub that is still reading a new repository).
    """

    repo: str
    commit: str
    last_modified: datetime | None
    downloads: int
    likes: int
    tags: tuple[str, ...]
    gating: Gating
    private: bool
    pipeline_tag: str | None
    license: str | None


@dataclass(frozen=True, slots=True)
class ListingPage:
    """A page of the Hub's list; `cursor` is None at the end."""

    repos: tuple[ListedRepo, ...]
    cursor: str | None


class _Refused(HubUnavailable):
    """The Hub is well and does not do what we ask; asking again does not help."""


class HubClient:
    """Talks to one Hub. Blocking; safe from any thread.

    `token` goes to the Hub's own origin only; without it the machine's own token is not used
    either. `sleep` waits between tries, and returns true when waiting makes no sense any more.
    """

    def __init__(
        self,
        endpoint: str,
        token: str | None,
        budget: Budget,
        wall: Callable[[], datetime],
        *,
        timing: Timing = DEFAULT_TIMING,
        bounds: Bounds = DEFAULT_BOUNDS,
        connections: int = 32,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._origin = _origin(self._endpoint)
        self._budget = budget
        self._wall = wall
        self._timing = timing
        self._bounds = bounds
        self._sleep = sleep
        self._has_token = bool(token)
        self._plain_headers = build_hf_headers(token=False, library_name="llm-router")
        self._own_headers = build_hf_headers(token=token or False, library_name="llm-router")
        self._http = httpx2.Client(
            follow_redirects=False,
            timeout=httpx2.Timeout(timing.answer, connect=timing.connect),
            limits=httpx2.Limits(
                max_connections=connections, max_keepalive_connections=connections
            ),
        )

    def close(self) -> None:
        """Ends all connections; calls under way fail."""
        self._http.close()

    def list_models(
        self, search: str, author: str, sort: Sort, limit: int, cursor: str | None
    ) -> ListingPage:
        """One page of the repositories that hold GGUF files."""
        query: Query = [
            ("filter", "gguf"),
            ("sort", _SORTS[sort]),
            ("limit", str(limit)),
            *(("expand", field) for field in _EXPAND),
        ]
        query += [(k, v) for k, v in (("search", search), ("author", author)) if v]
        if cursor is not None:
            query.append(("cursor", cursor))
        what = "the list of models"
        content, headers = self._json(f"{self._endpoint}/api/models", query, what)
        if not isinstance(content, list):
            raise _senseless(what)
        repos = tuple(repo for item in content if (repo := _listed(item)) is not None)
        if content and not repos:
            raise _senseless(what)
        return ListingPage(repos, _cursor(headers, what))

    def info(self, repo: str, revision: str) -> ListedRepo:
        """What the Hub says about a repository now, at the commit that `revision` names."""
        url = f"{self._endpoint}/api/models/{repo}/revision/{quote(revision, safe='')}"
        content, _ = self._json(url, [], f'repository "{repo}"', repo=repo, revision=revision)
        listed = _listed(content)
        if listed is None or not listed.commit:
            raise _senseless(f'repository "{repo}"')
        return listed

    def files(self, repo: str, commit: str) -> tuple[HubFile, ...]:
        """The files of a commit that can play a part in a model, with sizes and digests."""
        what = f'the files of "{repo}"'
        url = f"{self._endpoint}/api/models/{repo}/tree/{commit}"
        query: Query = [("recursive", "true")]
        files: list[HubFile] = []
        for _ in range(self._bounds.tree_pages):
            content, headers = self._json(url, query, what, repo=repo, revision=commit)
            if not isinstance(content, list):
                raise _senseless(what)
            files += [
                file
                for item in content
                if (file := _file(item, what)) is not None and is_relevant(file.path)
            ]
            cursor = _cursor(headers, what)
            if cursor is None or len(files) > self._bounds.repo_files:
                return tuple(files[: self._bounds.repo_files])
            query = [("recursive", "true"), ("cursor", cursor)]
        return tuple(files)

    def resolve(self, repo: str, commit: str, path: str, default_lifetime: timedelta) -> FileUrl:
        """Where the Hub sends those who ask for a file: a signed URL, or its own address.

        A signed URL that does not say when it expires is given `default_lifetime`.
        """
        plain = f"{self._endpoint}/{repo}/resolve/{commit}/{quote(path)}"
        what = f'file "{path}" of "{repo}"'
        url = plain
        for _ in range(_MAX_REDIRECTS):
            with self._answer(
                "HEAD", url, [], what, kind=CallKind.RESOLVE, repo=repo, revision=commit, path=path
            ) as response:
                location = response.headers.get("location", "")
            if not location or response.status_code // 100 != 3:
                return FileUrl(plain, None)
            url = self._redirect(url, location, what)
            if _origin(url) != self._origin or _is_signed(url):
                return FileUrl(url, _expiry(url, self._wall(), default_lifetime))
        raise HubUnavailable(f"the Hub redirects in circles for {what}")

    def read(self, url: str, what: str, offset: int, length: int) -> bytes:
        """Exactly these bytes of a file, from an address that `resolve` gave."""
        headers = {
            "Range": f"bytes={offset}-{offset + length - 1}",
            "Accept-Encoding": "identity",
        }
        for _ in range(_MAX_REDIRECTS):
            with self._answer("GET", url, [], what, kind=CallKind.RESOLVE, headers=headers) as got:
                if got.status_code // 100 == 3:
                    url = self._redirect(url, got.headers.get("location", ""), what)
                    continue
                if got.status_code != 206 and offset:
                    raise HubUnavailable(f"the Hub gives no part of {what}")
                return self._body(got, what, length)
        raise HubUnavailable(f"the Hub redirects in circles for {what}")

    def _json(
        self,
        url: str,
        query: Query,
        what: str,
        *,
        repo: str = "",
        revision: str = "",
    ) -> tuple[Any, httpx2.Headers]:
        """The answer's content and headers; follows redirects inside the Hub (renamed repos)."""
        for attempt, wait in enumerate((*self._timing.waits, None)):
            try:
                return self._json_once(url, query, what, repo=repo, revision=revision)
            except _Refused:
                raise
            except HubUnavailable:
                if wait is None or self._sleep(wait * (1 + 0.1 * attempt)):
                    raise
        raise AssertionError("the last try returns or raises")

    def _json_once(
        self, url: str, query: Query, what: str, *, repo: str, revision: str
    ) -> tuple[Any, httpx2.Headers]:
        for _ in range(_MAX_REDIRECTS):
            with self._answer("GET", url, query, what, repo=repo, revision=revision) as response:
                if response.status_code // 100 == 3:
                    url = self._redirect(url, response.headers.get("location", ""), what)
                    query = query if "?" not in url else []
                    if _origin(url) != self._origin:
                        raise HubUnavailable(f"the Hub sends us elsewhere for {what}")
                    continue
                body = self._body(response, what, self._bounds.body_bytes, whole=True)
                try:
                    return json.loads(body), response.headers
                except (ValueError, RecursionError) as error:
                    raise _senseless(what) from error
        raise HubUnavailable(f"the Hub redirects in circles for {what}")

    @contextmanager
    def _answer(
        self,
        method: str,
        url: str,
        query: Query,
        what: str,
        *,
        kind: CallKind = CallKind.API,
        headers: Mapping[str, str] | None = None,
        repo: str = "",
        revision: str = "",
        path: str = "",
    ) -> Iterator[httpx2.Response]:
        """One request; the answer is a success or a redirect, its body not read yet."""
        self._budget.admit(kind)
        own = self._own_headers if _origin(url) == self._origin else self._plain_headers
        try:
            with self._http.stream(
                method, url, params=query or None, headers={**own, **(headers or {})}
            ) as response:
                if response.status_code == 429:
                    raise self._budget.refused(kind, response.headers)
                self._refuse(response, what, repo, revision, path)
                yield response
                self._budget.answered(kind, response.headers)
        except (_Refused, NotFound, HubGated):
            self._budget.answered(kind, {})
            raise
        except HubUnavailable as error:
            self._budget.failed(error.message)
            raise
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError) as error:
            failure = HubUnavailable(f"the Hub does not answer for {what}: {_reason(error)}")
            self._budget.failed(failure.message)
            # Without the cause: the library's errors quote addresses and headers.
            raise failure from None
        except RuntimeError:
            # The connections were closed under a call; the library has no class for it.
            raise HubUnavailable("the router stops") from None

    def _refuse(
        self, response: httpx2.Response, what: str, repo: str, revision: str, path: str
    ) -> None:
        """Raises what an error status means; the library knows the Hub's `X-Error-Code`s."""
        status = response.status_code
        if status < 400:
            return
        if status >= 500 or status in (408, 425):
            raise HubUnavailable(f"the Hub answers {status} for {what}")
        asked = f"{self._endpoint}/{repo}" if repo else self._endpoint
        try:
            hf_raise_for_status(_without_body(response))
        except GatedRepoError:
            raise self._gated(what, asked) from None
        except RevisionNotFoundError:
            raise RevisionNotFound(
                f'repository "{repo}" has no revision "{revision}"', param="revision"
            ) from None
        except RemoteEntryNotFoundError:
            raise FileNotInRepo(
                f'repository "{repo}" has no file "{path}" at "{revision}"', param="filename"
            ) from None
        except RepositoryNotFoundError:
            raise _no_repo(repo) from None
        except HfHubHTTPError:
            if status in (401, 403):
                raise self._gated(what, asked) from None
            if status == 404 and repo:
                raise _no_repo(repo) from None
            raise _Refused(f"the Hub answers {status} for {what}") from None

    def _gated(self, what: str, page: str) -> HubGated:
        need = "the router's token has no access" if self._has_token else "the router has no token"
        return HubGated(f"the Hub gives {what} on request only, and {need}: ask at {page}")

    def _redirect(self, url: str, location: str, what: str) -> str:
        try:
            target = urljoin(url, location)
            scheme = urlsplit(target).scheme
        except ValueError as error:
            raise HubUnavailable("the Hub names an address without sense") from error
        secure = urlsplit(self._endpoint).scheme == "https"
        if not location or scheme not in ("http", "https") or (secure and scheme != "https"):
            raise HubUnavailable(f"the Hub redirects to a place we do not go for {what}")
        return target

    def _body(
        self, response: httpx2.Response, what: str, most: int, *, whole: bool = False
    ) -> bytes:
        """The body: at most `most` bytes of it, or, if `whole`, an error when there are more."""
        deadline = time.monotonic() + self._timing.whole
        parts: list[bytes] = []
        length = 0
        for part in response.iter_bytes():
            parts.append(part)
            length += len(part)
            if length >= most and not whole:
                break
            if length > most:
                raise HubUnavailable(f"the Hub's answer for {what} is too large")
            if time.monotonic() > deadline:
                raise HubUnavailable(f"the Hub takes too long to answer for {what}")
        return b"".join(parts)[:most]


def _without_body(response: httpx2.Response) -> httpx2.Response:
    """The same answer for the library, which would read any body, of any size and shape."""
    codes = {
        key: response.headers[key]
        for key in ("X-Error-Code", "X-Error-Message")
        if key in response.headers
    }
    return httpx2.Response(response.status_code, headers=codes, request=response.request)


def _listed(item: object) -> ListedRepo | None:
    """A repository as the Hub describes it; None when its name or commit makes no sense."""
    if not isinstance(item, dict):
        return None
    try:
        repo = names.repo_id(str(item.get("id", "")))
        commit = names.commit(str(item["sha"])) if item.get("sha") else ""
    except names.InvalidName:
        return None
    tags = item.get("tags")
    tags = tuple(t for t in tags if isinstance(t, str)) if isinstance(tags, list) else ()
    gated = item.get("gated")
    pipeline = item.get("pipeline_tag")
    card = item.get("cardData")
    named = card.get("license") if isinstance(card, dict) else None
    tagged = next((t.removeprefix("license:") for t in tags if t.startswith("license:")), None)
    return ListedRepo(
        repo,
        commit,
        _time(item.get("lastModified")),
        _count(item.get("downloads")),
        _count(item.get("likes")),
        tags[:_MAX_TAGS],
        Gating(gated) if gated in ("auto", "manual") else Gating.OPEN,
        item.get("private") is True,
        pipeline if isinstance(pipeline, str) else None,
        named if isinstance(named, str) else tagged,
    )


def _file(item: object, what: str) -> HubFile | None:
    """A file of a tree; None for a folder. A file without a size makes no sense."""
    if not isinstance(item, dict):
        raise _senseless(what)
    if item.get("type") != "file":
        return None
    path, size, oid, lfs = (item.get(key) for key in ("path", "size", "oid", "lfs"))
    digest = lfs.get("oid") if isinstance(lfs, dict) else None
    if isinstance(lfs, dict):
        size = lfs.get("size", size)
    if not isinstance(path, str) or not isinstance(size, int) or isinstance(size, bool):
        raise _senseless(what)
    try:
        sha256 = names.sha256(digest.removeprefix("sha256:")) if isinstance(digest, str) else None
    except names.InvalidName as error:
        raise _senseless(what) from error
    return HubFile(path, size, sha256, oid if isinstance(oid, str) else None)


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 53 else 0


def _time(value: object) -> datetime | None:
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


def _cursor(headers: httpx2.Headers, what: str) -> str | None:
    """The `cursor` of `Link: <…>; rel="next"` (RFC 8288)."""
    for link in headers.get("link", "").split(", "):
        match = re.match(r'\s*<([^>]*)>\s*;.*rel="?next"?', link)
        if match:
            try:
                return dict(parse_qsl(urlsplit(match[1]).query))["cursor"]
            except (ValueError, KeyError) as error:
                raise _senseless(what) from error
    return None


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port; raises `HubUnavailable` for an address without sense."""
    try:
        parts = urlsplit(url)
        default = 443 if parts.scheme == "https" else 80
        return parts.scheme, (parts.hostname or "").lower(), parts.port or default
    except ValueError as error:
        raise HubUnavailable("the Hub names an address without sense") from error


def _is_signed(url: str) -> bool:
    keys = {key.lower() for key, _ in parse_qsl(urlsplit(url).query)}
    return not keys.isdisjoint(_SIGNATURES)


def _expiry(url: str, now: datetime, default: timedelta) -> datetime:
    """When a signed URL ends: the earliest moment that its own parameters name."""
    query = {key.lower(): value for key, value in parse_qsl(urlsplit(url).query)}
    ends = [
        datetime.fromtimestamp(int(query[key]), UTC)
        for key in ("expires", "exp")
        if query.get(key, "").isdecimal() and len(query[key]) < 12
    ]
    lifetime = query.get("x-amz-expires", query.get("x-goog-expires", ""))
    if lifetime.isdecimal() and len(lifetime) < 8:
        signed = query.get("x-amz-date", query.get("x-goog-date", ""))
        try:
            start = datetime.strptime(signed, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            start = now
        ends.append(start + timedelta(seconds=int(lifetime)))
    return min(ends, default=now + default)


def _reason(error: Exception) -> str:
    """A few words about a failure, without addresses or headers."""
    if isinstance(error, httpx2.TimeoutException):
        return "it takes too long"
    if isinstance(error, httpx2.ConnectError):
        return "no connection"
    return _SAFE_REASON.sub("", type(error).__name__)


def _senseless(what: str) -> HubUnavailable:
    return HubUnavailable(f"the Hub's answer for {what} makes no sense")


def _no_repo(repo: str) -> RepoNotFound:
    return RepoNotFound(
        f'the Hub has no repository "{repo}", or hides it from the router', param="repo"
    )
