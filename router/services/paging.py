"""Pages of our own lists: a size with bounds, and a token that says where the last page ended."""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from router.domain.errors import InvalidArgument, InvalidPageToken

Item = TypeVar("Item")

DEFAULT_PAGE = 100
MAX_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some items, and the token of the next page: "" at the end."""

    items: list[Item]
    next_token: str


def page(
    size: int, token: str, fetch: Callable[[str, int], list[Item]], key: Callable[[Item], str]
) -> Page[Item]:
    """The page after `token`: `fetch` gets the last key and how many items to bring at most.

    `size` is 1 to 1000; 0 is 100. Raises `InvalidArgument`, `InvalidPageToken`.
    """
    if not 0 <= size <= MAX_PAGE:
        raise InvalidArgument(f"a page holds 1 to {MAX_PAGE} items", param="page_size")
    wanted = size or DEFAULT_PAGE
    items = fetch(_last_key(token), wanted + 1)
    more = len(items) > wanted
    items = items[:wanted]
    return Page(items, _token(key(items[-1])) if more else "")


def _token(last_key: str) -> str:
    return base64.urlsafe_b64encode(last_key.encode()).decode().rstrip("=")


def _last_key(token: str) -> str:
    try:
        key = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise _foreign() from None
    if _token(key) != token:  # the decoder skips what is not of its alphabet
        raise _foreign()
    return key


def _foreign() -> InvalidPageToken:
    return InvalidPageToken(
        "this page token was not made here: begin with an empty one", param="page_token"
    )
