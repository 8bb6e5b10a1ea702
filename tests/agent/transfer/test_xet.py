"""The Hub's Xet storage as a second way, with a real Xet store in a folder."""

import hashlib
import json
import time
from pathlib import Path

import pytest

from agent.transfer import SourceUrl, TransferStopped, XetUse
from agent.transfer.xet import LARGEST_BY_HTTP
from tests.agent.transfer.conftest import MIB, Running, Scene
from tests.fakes.http_source import Answer, Asked
from tests.support import eventually

hf_xet = pytest.importorskip("hf_xet")


class XetHub:
    """Makes the scene's source a Hub that offers its file through Xet."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        folder.mkdir()
        self._store = f"local://{folder}"
        content = scene.folder / "content"
        content.write_bytes(scene.source.content)
        with hf_xet.XetSession().new_upload_commit(endpoint=self._store) as commit:
            upload = commit.start_upload_file(str(content))
        self.hash = upload.result().xet_info.hash
        self.tokens: list[str | None] = []
        self.gets = 0
        scene.source.rule = self._answer

    def _answer(self, asked: Asked) -> Answer | None:
        if asked.target == "/token":
            self.tokens.append(asked.fields.get("authorization"))
            expires = int(time.time()) + 3600
            token = {"accessToken": "t", "exp": expires, "casUrl": self._store}
            return Answer(200, {"Content-Type": "application/json"}, json.dumps(token).encode())
        if asked.method == "HEAD":
            link = '</token>; rel="xet-auth", </other>; rel="xet-reconstruction-info"'
            return Answer(200, {"X-Xet-Hash": self.hash, "Link": link})
        self.gets += 1
        return None


@pytest.fixture
def hub(scene: Scene) -> XetHub:
    """A Hub with a real Xet store behind it."""
    return XetHub(scene, scene.folder / "cas")


def test_a_file_comes_through_xet_verified_like_any_other(scene: Scene, hub: XetHub) -> None:
    scene.resolve = lambda file: SourceUrl(scene.source.url, {"Authorization": "Bearer mine"})
    transfer = scene.transfer(xet=XetUse.ALWAYS)

    transfer.run()

    scene.assert_whole()
    assert hub.gets == 0
    assert hub.tokens == ["Bearer mine"]
    assert transfer.progress().bytes_from.hub == 4 * MIB


def test_plain_http_is_used_where_it_can_bring_the_file(scene: Scene, hub: XetHub) -> None:
    scene.transfer().run()

    scene.assert_whole()
    assert hub.gets > 0
    assert hub.tokens == []


def test_only_files_that_http_cannot_bring_want_xet_by_themselves() -> None:
    wants = [XetUse.AUTO.wants(LARGEST_BY_HTTP + 1), XetUse.AUTO.wants(LARGEST_BY_HTTP)]

    assert wants == [True, False]
    assert not XetUse.NEVER.wants(LARGEST_BY_HTTP + 1)


def test_a_hub_without_xet_is_no_hindrance(scene: Scene) -> None:
    scene.source.rule = lambda asked: Answer(200) if asked.method == "HEAD" else None

    scene.transfer(xet=XetUse.ALWAYS).run()

    scene.assert_whole()
    assert len([a for a in scene.source.asked if a.method == "HEAD"]) == 1


def test_http_brings_what_xet_cannot(scene: Scene, hub: XetHub) -> None:
    hub.hash = "0" * 64

    scene.transfer(xet=XetUse.ALWAYS).run()

    scene.assert_whole()
    assert hub.gets > 0


def test_wrong_bytes_from_xet_are_never_visible(scene: Scene, hub: XetHub) -> None:
    other = bytes(4 * MIB)
    scene.source.content, right = other, scene.source.content
    wrong = XetHub(scene, scene.folder / "wrong")

    with pytest.raises(Exception, match="SHA-256"):
        scene.transfer(xet=XetUse.ALWAYS).run()

    assert wrong.gets == 0
    assert scene.manifest.files[0].sha256 == hashlib.sha256(right).hexdigest()
    scene.assert_nothing_visible()


def test_a_download_through_xet_stops_at_once_and_goes_on_where_it_was(
    scene: Scene, hub: XetHub
) -> None:
    scene.rate.change(2 * MIB)
    running = Running(scene.transfer(xet=XetUse.ALWAYS))
    eventually(lambda: running.transfer.progress().received_bytes >= MIB)

    running.transfer.stop()
    stopped = running.wait()
    kept = scene.store.find(scene.manifest)[0].partial_bytes
    scene.rate.change(None)
    again = scene.transfer(xet=XetUse.ALWAYS)
    again.run()

    assert isinstance(stopped, TransferStopped)
    assert MIB <= kept < 4 * MIB
    assert hub.gets == 0
    scene.assert_whole()
