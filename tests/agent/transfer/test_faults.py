"""Everything a source can do wrong: the file is right in the end, or the failure has its name."""

import gzip
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate

import pytest

from agent.manifest import ManifestFile
from agent.transfer import SourceUrl, TransferError, TransferState
from tests.agent.transfer.conftest import KIB, MIB, Running, Scene, manifest_of, random_bytes
from tests.fakes.http_source import Answer, Asked, Ending, FaultySource, Rule, once, times
from tests.support import eventually

WINDOW = 512 * KIB

Bend = Callable[[FaultySource, Asked], Answer]


def cut(ending: Ending, *, part: int = 2) -> Bend:
    """Half of the body (one `part`-th), then this ending."""

    def bend(source: FaultySource, asked: Asked) -> Answer:
        right = source.right(asked)
        fields = {**right.fields, "Content-Length": str(len(right.body))}
        return Answer(right.status, fields, right.body[: len(right.body) // part], ending)

    return bend


def changed(status: int | None = None, body: bytes | None = None, **fields: str) -> Bend:
    """The right answer with something replaced; `_` in a field's name stands for `-`."""

    def bend(source: FaultySource, asked: Asked) -> Answer:
        right = source.right(asked)
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        return Answer(
            right.status if status is None else status,
            {**right.fields, **named},
            right.body if body is None else body,
        )

    return bend


def whole(source: FaultySource, asked: Asked) -> Answer:
    """The whole file to a ranged request."""
    return Answer(200, {"ETag": '"e1"'}, source.content)


def longer(source: FaultySource, asked: Asked) -> Answer:
    """Bytes after the end of the body."""
    right = source.right(asked)
    fields = {**right.fields, "Content-Length": str(len(right.body))}
    return Answer(right.status, fields, right.body + b"garbage" * 100)


def too_long(source: FaultySource, asked: Asked) -> Answer:
    """A body that is announced longer than the range."""
    right = source.right(asked)
    return Answer(right.status, right.fields, right.body + b"garbage")


def shifted(source: FaultySource, asked: Asked) -> Answer:
    """Another range than the one asked for."""
    start, end = asked.start + 1, min(asked.end + 1, len(source.content))
    return source.right(replace(asked, start=start, end=end))


def zipped(source: FaultySource, asked: Asked) -> Answer:
    """The range, compressed against our wish."""
    right = source.right(asked)
    return Answer(206, {**right.fields, "Content-Encoding": "gzip"}, gzip.compress(right.body))


def garbage(source: FaultySource, asked: Asked) -> Answer:
    """An answer without a place."""
    return Answer(206, {}, source.content[asked.start : asked.end])


PASSING: dict[str, Bend] = {
    "reset": cut(Ending.RESET),
    "cut short": cut(Ending.CLOSE),
    "extra bytes": longer,
    "longer than the range": too_long,
    "wrong Content-Range": shifted,
    "no Content-Range": garbage,
    "gzip": zipped,
    "500": changed(500, b"oops"),
    "502": changed(502, b""),
    "503": changed(503, b"", Retry_After="0"),
    "429": changed(429, b"", Retry_After="0"),
    "408": changed(408, b""),
}


def bent(source: FaultySource, bend: Bend, when: Callable[[Asked], bool]) -> Rule:
    """The rule that bends the answers to some requests."""
    return lambda asked: bend(source, asked) if when(asked) else None


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_passing_fault_costs_no_more_than_its_piece(scene: Scene, fault: str, where: str) -> None:
    place = {"first": 0, "middle": 2 * MIB, "last": 4 * MIB - 1}[where]
    scene.source.rule = once(
        bent(scene.source, PASSING[fault], lambda asked: asked.start <= place < asked.end)
    )

    scene.transfer().run()

    scene.assert_whole()
    assert scene.source.bytes_served <= 4 * MIB + 2 * 256 * KIB


FINAL: dict[str, tuple[Bend, str]] = {
    "resets": (cut(Ending.RESET, part=10**9), "source_unavailable"),
    "server errors": (changed(500, b"oops"), "source_unavailable"),
    "rate limits": (changed(429, b"", Retry_After="0"), "source_rate_limited"),
    "wrong ranges": (shifted, "source_misbehaved"),
    "gzip": (zipped, "source_misbehaved"),
    "not found": (changed(404, b""), "source_rejected"),
    "forbidden": (changed(403, b""), "source_rejected"),
    "gated": (changed(403, b"", X_Error_Code="GatedRepo"), "gated"),
    "a login page": (
        lambda s, a: Answer(200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>log in"),
        "source_rejected",
    ),
    "another size": (
        lambda s, a: Answer(206, {"Content-Range": f"bytes {a.start}-{a.end - 1}/99999999"}, b""),
        "size_mismatch",
    ),
    "no such range": (
        lambda s, a: Answer(416, {"Content-Range": "bytes */1000"}, b""),
        "size_mismatch",
    ),
    "redirects in a circle": (changed(302, b"", Location="/again"), "source_misbehaved"),
    "a redirect to nowhere": (changed(302, b"", Location="ftp://x/"), "source_misbehaved"),
    "another file at the Hub": (
        lambda s, a: Answer(302, {"X-Linked-Etag": '"' + "0" * 64 + '"', "Location": s.url}),
        "source_changed",
    ),
    "chunks without a length": (
        lambda s, a: Answer(200, {"Transfer-Encoding": "chunked"}, b"0\r\n\r\n"),
        "range_not_supported",
    ),
    "not HTTP": (lambda s, a: Answer(206, {"Bad Name": "x"}, b""), "source_misbehaved"),
}


@pytest.mark.parametrize("fault", FINAL)
def test_a_lasting_fault_ends_with_its_own_code_and_shows_no_file(scene: Scene, fault: str) -> None:
    bend, code = FINAL[fault]
    scene.source.rule = bent(scene.source, bend, lambda asked: True)

    with pytest.raises(TransferError) as raised:
        scene.transfer().run()

    assert raised.value.code == code
    assert scene.source.url.rpartition("/")[0] not in raised.value.message
    assert len(scene.source.asked) < 200
    scene.assert_nothing_visible()


def test_a_refused_connection_is_named(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    scene.resolve = lambda file: SourceUrl(f"http://127.0.0.1:{port}/x")

    with pytest.raises(TransferError, match="refused") as raised:
        scene.transfer().run()

    assert (raised.value.code, raised.value.retryable) == ("source_unavailable", True)


def test_a_name_that_does_not_resolve_is_named(scene: Scene) -> None:
    scene.resolve = lambda file: SourceUrl("http://no-such-host.invalid/x")

    with pytest.raises(TransferError, match="cannot be resolved") as raised:
        scene.transfer().run()

    assert raised.value.code == "source_unavailable"


def test_a_source_without_ranges_is_read_with_one_connection(scene: Scene) -> None:
    scene.source.rule = bent(scene.source, whole, lambda asked: True)

    scene.transfer().run()

    scene.assert_whole()
    assert [asked for asked in scene.source.asked if not asked.is_ranged]


def test_a_source_without_ranges_that_breaks_off_keeps_what_came(scene: Scene) -> None:
    def rule(asked: Asked) -> Answer:
        body = scene.source.content
        if not asked.is_ranged and sum(not a.is_ranged for a in scene.source.asked) == 1:
            length = {"Content-Length": str(len(body))}
            return Answer(200, length, body[: 3 * MIB], Ending.RESET)
        return Answer(200, {}, body)

    scene.source.rule = rule

    scene.transfer().run()

    scene.assert_whole()


def test_one_whole_answer_among_ranges_is_not_believed(scene: Scene) -> None:
    scene.source.rule = once(bent(scene.source, whole, lambda asked: asked.start >= 2 * MIB))

    scene.transfer().run()

    scene.assert_whole()


def test_another_version_in_mid_file_is_noticed(scene: Scene) -> None:
    scene.source.rule = bent(
        scene.source, changed(ETag='"e2"'), lambda asked: asked.start >= 2 * MIB
    )

    with pytest.raises(TransferError) as raised:
        scene.transfer().run()

    assert raised.value.code == "source_changed"
    scene.assert_nothing_visible()


def flipped(source: FaultySource, asked: Asked) -> Answer:
    """One wrong bit."""
    right = source.right(asked)
    return replace(right, body=bytes([right.body[0] ^ 1]) + right.body[1:])


def test_a_flipped_bit_is_found_and_the_file_fetched_once_more(scene: Scene) -> None:
    scene.source.rule = once(bent(scene.source, flipped, lambda asked: asked.start >= 2 * MIB))

    scene.transfer().run()

    scene.assert_whole()
    assert scene.source.bytes_served == 2 * 4 * MIB


def test_wrong_bytes_twice_fail_and_leave_nothing(scene: Scene) -> None:
    scene.source.rule = bent(scene.source, flipped, lambda asked: asked.start >= 2 * MIB)

    with pytest.raises(TransferError) as raised:
        scene.transfer().run()

    assert (raised.value.code, raised.value.retryable) == ("digest_mismatch", False)
    assert scene.source.bytes_served == 2 * 4 * MIB
    assert scene.leftovers() == []
    scene.assert_nothing_visible()


def test_progress_never_goes_back_when_a_file_is_fetched_once_more(scene: Scene) -> None:
    scene.source.rule = once(bent(scene.source, flipped, lambda asked: asked.start >= 2 * MIB))
    scene.rate.change(16 * MIB)
    running = Running(scene.transfer())
    seen = [0]

    def ended() -> bool:
        seen.append(running.transfer.progress().received_bytes)
        return seen[-1] == 4 * MIB and scene.source.bytes_served == 8 * MIB

    eventually(ended)

    assert running.wait() is None
    assert seen == sorted(seen)


def test_a_silent_connection_is_broken_and_its_bytes_are_kept(scene: Scene) -> None:
    scene.source.rule = once(
        bent(scene.source, cut(Ending.SILENCE), lambda asked: asked.start == 0)
    )

    scene.transfer(stall_seconds=1.0).run()

    scene.assert_whole()
    assert scene.source.bytes_served <= 5 * MIB


def test_a_source_that_stays_silent_ends_as_stalled(scene: Scene) -> None:
    scene.source.rule = bent(scene.source, cut(Ending.SILENCE, part=10**9), lambda asked: True)

    with pytest.raises(TransferError) as raised:
        scene.transfer(stall_seconds=0.1).run()

    assert (raised.value.code, raised.value.retryable) == ("stalled", True)


def test_the_wait_that_the_hub_asks_for_is_kept_and_shown(scene: Scene) -> None:
    limited = changed(429, b"", Retry_After="40")
    scene.source.rule = bent(scene.source, limited, lambda asked: True)
    running = Running(scene.transfer(connections=1))

    eventually(lambda: running.transfer.progress().state is TransferState.WAITING)
    note = running.transfer.progress().note

    assert note in {f"waiting {s} s: the Hub limits requests" for s in (38, 39, 40)}
    assert len(scene.source.asked) == 1
    running.stop()


@pytest.mark.parametrize(
    "fields",
    [
        {"Retry-After": formatdate(time.time() + 500, usegmt=True)},
        {"RateLimit": '"resolvers";r=0;t=40'},
    ],
    ids=["a date", "the Hub's own field"],
)
def test_a_wait_may_be_told_in_other_ways(scene: Scene, fields: dict[str, str]) -> None:
    scene.source.rule = lambda asked: Answer(429, fields)
    running = Running(scene.transfer(connections=1))

    eventually(lambda: running.transfer.progress().state is TransferState.WAITING)

    assert running.transfer.progress().note.startswith("waiting ")
    assert len(scene.source.asked) == 1
    running.stop()


def test_a_signed_address_that_expires_in_mid_file_is_resolved_again(scene: Scene) -> None:
    resolved: list[str] = []
    uses: dict[str, int] = {}

    def resolve(file: ManifestFile) -> SourceUrl:
        resolved.append(f"{scene.source.url}?signature={len(resolved)}")
        return SourceUrl(resolved[-1])

    def rule(asked: Asked) -> Answer | None:
        uses[asked.target] = uses.get(asked.target, 0) + 1
        return Answer(403, {}, b"expired") if uses[asked.target] > 6 else None

    scene.resolve = resolve
    scene.source.rule = rule

    scene.transfer().run()

    scene.assert_whole()
    assert 2 <= len(resolved) <= 5
    assert scene.source.bytes_served <= 4 * MIB + 100


def test_an_address_is_asked_for_again_once_its_time_is_over(scene: Scene) -> None:
    resolved: list[float] = []

    def resolve(file: ManifestFile) -> SourceUrl:
        resolved.append(time.time())
        return SourceUrl(scene.source.url, expires_at=time.time() - 1)

    scene.resolve = resolve

    scene.transfer(connections=1, max_connections=1).run()

    scene.assert_whole()
    assert len(resolved) == len(scene.source.asked)


def test_the_end_of_a_redirect_is_used_for_all_pieces_until_refused(scene: Scene) -> None:
    with FaultySource(scene.source.content) as hub:
        hub.rule = lambda asked: Answer(302, {"Location": f"{scene.source.url}?signed"})
        refused = once(lambda asked: Answer(403) if asked.start >= 2 * MIB else None)
        scene.source.rule = refused
        scene.resolve = lambda file: SourceUrl(hub.url)

        scene.transfer(connections=1, max_connections=1).run()

        scene.assert_whole()
        assert len(hub.asked) == 2


def test_credentials_stay_with_their_origin(scene: Scene) -> None:
    secret = {"Authorization": "Bearer hf_secret", "X-Secret": "too"}
    with FaultySource(scene.source.content) as hub:
        hub.rule = lambda asked: (
            Answer(307, {"Location": "/second"})
            if asked.target != "/second"
            else Answer(302, {"Location": scene.source.url})
        )
        scene.resolve = lambda file: SourceUrl(hub.url, secret)

        scene.transfer().run()

        scene.assert_whole()
        assert all(asked.fields.get("authorization") for asked in hub.asked)
    for asked in scene.source.asked:
        assert not {"authorization", "x-secret"} & set(asked.fields)


def test_every_request_asks_for_the_bytes_as_they_are(scene: Scene) -> None:
    scene.transfer().run()

    assert {asked.fields["accept-encoding"] for asked in scene.source.asked} == {"identity"}


def test_a_connection_that_was_closed_while_idle_is_not_a_failure(scene: Scene) -> None:
    scene.source.rule = lambda asked: replace(scene.source.right(asked), ending=Ending.CLOSE)

    scene.transfer().run()

    scene.assert_whole()
    assert scene.source.bytes_served == 4 * MIB
    assert not [event for event, _ in scene.log.events if event == "a source failed"]


def test_resolving_that_fails_for_a_while_is_tried_again(scene: Scene) -> None:
    failures = iter([True, True])

    def resolve(file: ManifestFile) -> SourceUrl:
        if next(failures, False):
            raise TransferError("router_away", "the router does not answer", retryable=True)
        return SourceUrl(scene.source.url)

    scene.resolve = resolve

    scene.transfer().run()

    scene.assert_whole()


def test_resolving_that_is_refused_ends_the_transfer(scene: Scene) -> None:
    def resolve(file: ManifestFile) -> SourceUrl:
        raise TransferError("gated", "no access", retryable=False)

    scene.resolve = resolve

    with pytest.raises(TransferError) as raised:
        scene.transfer().run()

    assert raised.value.code == "gated"


def test_many_passing_faults_together_do_no_harm(scene: Scene) -> None:
    bends = list(PASSING.values())
    scene.source.rule = times(
        len(bends),
        lambda asked: (
            bends[asked.number // 2 % len(bends)](scene.source, asked) if asked.number % 2 else None
        ),
    )

    scene.transfer().run()

    scene.assert_whole()


def test_a_small_file_without_a_digest_is_held_against_its_git_object_id(scene: Scene) -> None:
    content = random_bytes(1000)
    scene.source.content = content
    scene.manifest = manifest_of(("config.json", content), digests=False)
    scene.source.rule = lambda asked: replace(
        scene.source.right(asked),
        fields={
            **scene.source.right(asked).fields,
            "ETag": '"' + "0" * 40 + '"',
            "X-Repo-Commit": "c",
        },
    )

    with pytest.raises(TransferError) as raised:
        scene.transfer().run()

    assert raised.value.code == "digest_mismatch"
