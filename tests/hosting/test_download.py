"""What the hub answers for one file: ranges, conditions, redirects, speed limit."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from router.protocol.download import RateLimit
from tests.fakes.hub import FaultyHub, make_repo
from tests.hosting.conftest import MODEL, REPO, Models, http
from tests.support import eventually

FILE = f"/{REPO}/resolve/main/{MODEL}"
SIZE = 300_000


def get(hub: FaultyHub, path: str = FILE, **headers: str) -> httpx.Response:
    return http.get(hub.url + path, headers=headers)


def test_a_head_request_tells_size_digest_and_commit(hub: FaultyHub, models: Models) -> None:
    sha256 = hashlib.sha256(models.contents[MODEL]).hexdigest()

    response = http.head(hub.url + FILE, headers={"Range": "bytes=0-9"})

    assert response.status_code == 200
    assert response.headers["Content-Length"] == str(SIZE)
    assert response.headers["ETag"] == response.headers["X-Linked-Etag"] == f'"{sha256}"'
    assert response.headers["X-Linked-Size"] == str(SIZE)
    assert response.headers["Accept-Ranges"] == "bytes"
    assert len(response.headers["X-Repo-Commit"]) == 40


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=1000-1999", 1000, 1999),
        ("bytes=299999-", 299_999, 299_999),
        ("bytes=5-999999999", 5, 299_999),
        ("bytes=-100", 299_900, 299_999),
        ("bytes=-999999999", 0, 299_999),
        ("bytes = 7 - 8", 7, 8),
    ],
)
def test_a_range_is_answered_with_that_part(
    hub: FaultyHub, models: Models, header: str, first: int, last: int
) -> None:
    response = get(hub, Range=header)

    assert response.status_code == 206
    assert response.headers["Content-Range"] == f"bytes {first}-{last}/{SIZE}"
    assert response.content == models.contents[MODEL][first : last + 1]


@pytest.mark.parametrize("header", ["bytes=300000-", "bytes=300000-300001", "bytes=-0"])
def test_a_range_behind_the_end_is_refused_with_the_size(hub: FaultyHub, header: str) -> None:
    response = get(hub, Range=header)

    assert response.status_code == 416
    assert response.headers["Content-Range"] == f"bytes */{SIZE}"
    assert response.content == b""


@pytest.mark.parametrize(
    "header",
    ["bytes=5-4", "bytes=-", "bytes=a-b", "items=0-1", "bytes=0-1,5-6", "bytes=" + "9" * 99],
)
def test_a_range_that_means_nothing_is_ignored(hub: FaultyHub, models: Models, header: str) -> None:
    response = get(hub, Range=header)

    assert response.status_code == 200
    assert response.content == models.contents[MODEL]


def test_an_empty_file_is_served(hub: FaultyHub, models: Models) -> None:
    make_repo(models.folder, "acme/empty", {"empty.gguf": b""})

    whole = get(hub, "/acme/empty/resolve/main/empty.gguf")
    part = get(hub, "/acme/empty/resolve/main/empty.gguf", Range="bytes=0-")

    assert (whole.status_code, whole.content) == (200, b"")
    assert part.status_code == 416


def test_if_range_gives_a_part_of_the_same_file_only(hub: FaultyHub) -> None:
    known = http.head(hub.url + FILE).headers
    part = {"Range": "bytes=0-9"}

    same_tag = get(hub, **part, **{"If-Range": known["ETag"]})
    same_date = get(hub, **part, **{"If-Range": known["Last-Modified"]})
    other = get(hub, **part, **{"If-Range": '"other"'})

    assert [answer.status_code for answer in (same_tag, same_date, other)] == [206, 206, 200]


def test_if_none_match_saves_the_body(hub: FaultyHub) -> None:
    etag = http.head(hub.url + FILE).headers["ETag"]

    same = get(hub, **{"If-None-Match": f'"other", W/{etag}'})
    other = get(hub, **{"If-None-Match": '"other"'})

    assert (same.status_code, same.content) == (304, b"")
    assert other.status_code == 200


def test_a_small_text_file_has_its_git_id_as_etag(hub: FaultyHub) -> None:
    response = get(hub, f"/{REPO}/resolve/main/README.md")

    assert "X-Linked-Etag" not in response.headers
    assert len(response.headers["ETag"]) == 42


@pytest.mark.parametrize(
    "path",
    [
        f"/{REPO}/resolve/main/..%2f..%2f..%2fsecret.gguf",
        f"/{REPO}/resolve/main/%2e%2e/%2e%2e/%2e%2e/secret.gguf",
        f"/{REPO}/resolve/main//etc/passwd",
        "/..%2f/resolve/main/secret.gguf",
        "/%2e%2e/models/resolve/main/secret.gguf",
        "/acme/%2e%2e%2f%2e%2e/resolve/main/secret.gguf",
        "/.llm-router-hub/digests.json/resolve/main/x",
        f"/{REPO}/resolve/main/%00",
        f"/{REPO}/resolve/main",
        "/api/models/%2e%2e/models",
    ],
)
def test_names_from_outside_never_leave_the_folder(
    hub: FaultyHub, models: Models, path: str
) -> None:
    (models.folder.parent / "secret.gguf").write_bytes(b"secret")

    url = httpx.URL(hub.url).copy_with(raw_path=path.encode())
    response = http.send(http.build_request("GET", url))

    assert response.status_code == 404
    assert b"secret\n" not in response.content
    assert "X-Error-Message" in response.headers


def test_a_repository_with_an_encoded_slash_is_understood(hub: FaultyHub) -> None:
    assert get(hub, "/api/models/acme%2Ftiny-GGUF").json()["id"] == REPO


def test_a_web_page_under_another_name_gets_nothing(hub: FaultyHub) -> None:
    for path in ("/api/models", FILE, "/healthz"):
        assert get(hub, path, Host="rebound.example").status_code == 421


def test_a_signed_address_is_redirected_to_and_serves_parts(
    signing_hub: FaultyHub, models: Models
) -> None:
    redirect = get(signing_hub)
    location = redirect.headers["Location"]

    part = http.get(location, headers={"Range": "bytes=10-19"})
    small = get(signing_hub, f"/{REPO}/resolve/main/README.md")

    assert redirect.status_code == 302
    assert redirect.headers["X-Linked-Size"] == str(SIZE)
    assert part.content == models.contents[MODEL][10:20]
    assert part.headers["ETag"] == redirect.headers["X-Linked-Etag"]
    assert small.status_code == 200


def test_a_signed_address_works_for_its_content_and_time_only(
    signing_hub: FaultyHub, models: Models
) -> None:
    contents = make_repo(models.folder, "acme/other", {"other.gguf": 100})
    location = get(signing_hub).headers["Location"]
    parts = urlsplit(location)
    other = hashlib.sha256(contents["other.gguf"]).hexdigest()
    expires = parse_qs(parts.query)["Expires"][0]

    forged = [
        location.replace(parts.path, f"/lfs/acme/other/{other}"),
        location.replace(f"Expires={expires}", f"Expires={int(expires) + 1}"),
        location.replace("Signature=", "Signature=0"),
        location.partition("?")[0],
    ]
    answers = [http.get(url).status_code for url in forged]
    signing_hub.expire_signed_urls()
    expired = http.get(location)

    assert answers == [403, 403, 403, 403]
    assert expired.status_code == 403
    assert "expired" in expired.text


def test_a_signed_address_of_content_that_left_is_not_found(
    signing_hub: FaultyHub, models: Models
) -> None:
    location = get(signing_hub).headers["Location"]

    (models.folder / REPO / MODEL).unlink()

    assert http.get(location).status_code == 404


def test_many_clients_get_parts_of_one_file_at_once(hub: FaultyHub, models: Models) -> None:
    step = 10_000

    def part(start: int) -> bytes:
        return get(hub, Range=f"bytes={start}-{start + step - 1}").content

    with ThreadPoolExecutor(16) as clients:
        parts = list(clients.map(part, range(0, SIZE, step)))

    assert b"".join(parts) == models.contents[MODEL]


def test_a_limited_rate_delivers_everything(models: Models) -> None:
    with FaultyHub(models.folder, max_rate=SIZE * 20) as hub, ThreadPoolExecutor(2) as clients:
        answers = list(clients.map(lambda _: get(hub), range(2)))

    assert all(answer.content == models.contents[MODEL] for answer in answers)


def test_the_rate_limit_makes_everybody_wait_for_all_bytes_before() -> None:
    now = 100.0
    limit = RateLimit(1000, lambda: now)

    first, second = limit.delay(500), limit.delay(500)
    now += 60.0
    after_a_pause = limit.delay(500)

    assert first == pytest.approx(0.5)
    assert second == pytest.approx(first + 0.5)
    assert after_a_pause == pytest.approx(0.45), "an idle minute must not pay for a burst"


def test_a_client_that_leaves_ends_its_download(models: Models) -> None:
    with FaultyHub(models.folder, max_rate=SIZE // 60) as hub:  # a minute for the file
        with http.stream("GET", hub.url + FILE) as response:
            parts = response.iter_raw(1000)
            next(parts)
        (record,) = hub.requests

        eventually(lambda: record.ended)

    assert 0 < record.bytes_sent < SIZE


def test_a_file_replaced_while_it_is_sent_stays_what_it_was(models: Models) -> None:
    content = make_repo(models.folder, "acme/large", {"large.gguf": 20_000_000})["large.gguf"]
    path = models.folder / "acme/large/large.gguf"
    begun = threading.Event()
    with (
        FaultyHub(models.folder) as hub,
        http.stream("GET", f"{hub.url}/acme/large/resolve/main/large.gguf") as response,
    ):
        parts = []
        for part in response.iter_raw():
            parts.append(part)
            if not begun.is_set():
                begun.set()
                _replace(path, b"new content")

    assert b"".join(parts) == content


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(".fresh")
    fresh.write_bytes(content)
    fresh.replace(path)
