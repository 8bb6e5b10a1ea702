"""The tests' own misbehaving hub: that each fault is the one it claims to be."""

import gzip
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fakes.hub import (
    Answer,
    Delay,
    ExtraBytes,
    Fault,
    FaultyHub,
    FlipBits,
    Gzipped,
    IgnoreRange,
    ResetAfter,
    StallAfter,
    TruncateAfter,
    changed_etag,
    garbage_json,
    html_page,
    make_repo,
    rate_limited,
    wrong_content_range,
)
from tests.hosting.conftest import http

REPO = "acme/tiny-GGUF"
FILE = f"/{REPO}/resolve/main/tiny.gguf"
SIZE = 300_000


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    return make_repo(tmp_path, REPO, {"tiny.gguf": SIZE})["tiny.gguf"]


@pytest.fixture
def hub(tmp_path: Path, content: bytes) -> Iterator[FaultyHub]:
    with FaultyHub(tmp_path) as running:
        yield running


def get(hub: FaultyHub, path: str = FILE, **headers: str) -> httpx.Response:
    return http.get(hub.url + path, headers=headers)


def received(hub: FaultyHub) -> tuple[bytes, type[Exception] | None]:
    """What arrived of the file before the connection broke, and how it broke."""
    body = b""
    try:
        with http.stream("GET", hub.url + FILE) as response:
            for part in response.iter_raw():
                body += part
    except httpx.TransportError as error:
        return body, type(error)
    return body, None


def test_without_a_script_the_product_answers(hub: FaultyHub, content: bytes) -> None:
    response = get(hub, Range="bytes=10-19", Authorization="Bearer t")

    assert response.content == content[10:20]
    (record,) = hub.requests
    assert (record.method, record.path, record.range) == ("GET", FILE, "bytes=10-19")
    assert (record.authorization, record.status, record.bytes_sent) == ("Bearer t", 206, 10)
    assert hub.bytes_served("tiny.gguf") == 10


def test_faults_follow_the_order_of_matching_requests(hub: FaultyHub) -> None:
    hub.script("*.gguf", None, Answer(500), rate_limited(7))

    other = get(hub, "/api/models")
    answers = [get(hub) for _ in range(4)]

    assert other.status_code == 200
    assert [answer.status_code for answer in answers] == [200, 500, 429, 200]
    assert answers[2].headers["Retry-After"] == "7"
    assert "r=0;t=7" in answers[2].headers["RateLimit"]


def test_a_lasting_fault_ends_when_healed(hub: FaultyHub) -> None:
    hub.always("/api/models", garbage_json())

    first, second = get(hub, "/api/models"), get(hub, "/api/models")
    hub.heal()

    for broken in (first, second):
        with pytest.raises(ValueError):
            broken.json()
    assert get(hub, "/api/models").json()[0]["id"] == REPO


def test_a_fault_is_for_its_method_only(hub: FaultyHub) -> None:
    hub.script("*.gguf", Answer(503), method="HEAD")

    assert get(hub).status_code == 200
    assert http.head(hub.url + FILE).status_code == 503


@pytest.mark.parametrize(
    ("fault", "how"),
    [(ResetAfter(1000), httpx.ReadError), (TruncateAfter(1000), httpx.RemoteProtocolError)],
)
def test_a_broken_connection_delivers_only_the_beginning(
    hub: FaultyHub, content: bytes, fault: Fault, how: type[Exception]
) -> None:
    hub.script("*.gguf", fault)

    body, broken = received(hub)

    assert body == content[: len(body)]
    assert len(body) <= 1000
    assert broken is how
    assert hub.bytes_served("tiny.gguf") == 1000


def test_a_stall_lasts_until_it_is_released(hub: FaultyHub, content: bytes) -> None:
    stall = StallAfter(1000)
    hub.script("*.gguf", stall)
    answers: list[bytes] = []
    client = threading.Thread(target=lambda: answers.append(get(hub).content))

    client.start()
    stalled = stall.reached.wait(20)
    served_while_stalled = hub.bytes_served("tiny.gguf")
    stall.release()
    client.join(20)

    assert stalled
    assert served_while_stalled == 1000
    assert answers == [content]


def test_extra_bytes_lengthen_the_body(hub: FaultyHub, content: bytes) -> None:
    hub.script("*.gguf", ExtraBytes(5))

    assert get(hub).content == content + bytes(5)


def test_an_ignored_range_answers_the_whole_file(hub: FaultyHub, content: bytes) -> None:
    hub.script("*.gguf", IgnoreRange())

    response = get(hub, Range="bytes=10-19")

    assert response.status_code == 200
    assert response.content == content


def test_headers_can_lie(hub: FaultyHub) -> None:
    hub.script("*.gguf", wrong_content_range("bytes 5-14/20"), changed_etag("f" * 64))

    part, changed = get(hub, Range="bytes=10-19"), get(hub)

    assert part.headers["Content-Range"] == "bytes 5-14/20"
    assert changed.headers["ETag"] == changed.headers["X-Linked-Etag"] == f'"{"f" * 64}"'


def test_flipped_bits_change_one_byte(hub: FaultyHub, content: bytes) -> None:
    hub.script("*.gguf", FlipBits(1000))

    body = get(hub).content

    assert [i for i in range(SIZE) if body[i] != content[i]] == [1000]


def test_a_compressed_body_says_so(hub: FaultyHub, content: bytes) -> None:
    hub.script("*.gguf", Gzipped())

    with http.stream("GET", hub.url + FILE) as response:
        raw = b"".join(response.iter_raw())

    assert response.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(raw) == content


def test_a_page_of_html_can_come_in_place_of_a_file(hub: FaultyHub) -> None:
    hub.script("*.gguf", html_page())

    assert get(hub).headers["Content-Type"] == "text/html"


def test_a_delayed_answer_is_the_right_one(hub: FaultyHub, content: bytes) -> None:
    hub.script("*.gguf", Delay(0.01))
    hub.delay = 0.01

    assert get(hub).content == content


def test_a_slow_connection_delivers_everything(hub: FaultyHub, content: bytes) -> None:
    hub.connection_rate = 20 * SIZE

    assert get(hub).content == content


def test_a_gated_repository_shows_its_files_with_the_token_only(hub: FaultyHub) -> None:
    hub.gate(REPO, "secret")

    stranger, friend = get(hub), get(hub, Authorization="Bearer secret")

    assert (stranger.status_code, stranger.headers["X-Error-Code"]) == (403, "GatedRepo")
    assert friend.status_code == 200
    assert get(hub, f"/api/models/{REPO}").status_code == 200


def test_a_private_repository_does_not_exist_for_strangers(hub: FaultyHub) -> None:
    hub.hide(REPO, "secret")

    stranger = get(hub, f"/api/models/{REPO}")
    friend = get(hub, f"/api/models/{REPO}", Authorization="Bearer secret")

    assert (stranger.status_code, stranger.headers["X-Error-Code"]) == (404, "RepoNotFound")
    assert friend.status_code == 200
    assert get(hub, "/api/models").json() == []


def test_standing_can_be_set(hub: FaultyHub) -> None:
    hub.set_standing(REPO, downloads=12, likes=3)

    (listed,) = get(hub, "/api/models").json()

    assert (listed["downloads"], listed["likes"]) == (12, 3)


def test_signed_addresses_can_lead_to_a_second_origin(tmp_path: Path, content: bytes) -> None:
    with FaultyHub(tmp_path, second_origin=True) as hub:
        location = get(hub).headers["Location"]

        body = http.get(location).content

    assert location.startswith(hub.cdn_url)
    assert hub.cdn_url != hub.url
    assert body == content
    assert [record.origin for record in hub.requests] == ["hub", "cdn"]


def test_signed_addresses_expire_on_request(tmp_path: Path, content: bytes) -> None:
    with FaultyHub(tmp_path, signed_urls=True) as hub:
        old = get(hub).headers["Location"]
        hub.expire_signed_urls()
        new = get(hub).headers["Location"]

        answers = [http.get(old), http.get(new)]

    assert [answer.status_code for answer in answers] == [403, 200]


def test_a_stopped_hub_comes_back_at_the_same_address(hub: FaultyHub, content: bytes) -> None:
    before = hub.url

    hub.stop()
    with pytest.raises(httpx.ConnectError):
        get(hub)
    hub.start()

    assert hub.url == before
    assert get(hub).content == content


def test_the_same_seed_makes_the_same_content(tmp_path: Path) -> None:
    first = make_repo(tmp_path / "a", REPO, {"x.gguf": 100, "y.txt": b"hello"})
    second = make_repo(tmp_path / "b", REPO, {"x.gguf": 100, "y.txt": b"hello"})
    other = make_repo(tmp_path / "c", REPO, {"x.gguf": 100}, seed=1)

    assert first == second
    assert first["x.gguf"] != other["x.gguf"]
    assert (tmp_path / "a" / REPO / "y.txt").read_bytes() == b"hello"
