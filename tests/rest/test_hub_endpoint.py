"""`/hub`: the router in the Hub's own protocol, for registered models and nothing else."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from huggingface_hub import hf_hub_download

from protos import tickets
from protos.llmrouter.v1 import agent_pb2, common_pb2
from router.config import Timers
from tests.fakes.agent import FakeAgent, hello
from tests.fakes.hub import FaultyHub, make_repo
from tests.fakes.running_router import RunningRouter
from tests.rest.conftest import FILE, REPO, register
from tests.support import eventually

PATH = f"/hub/{REPO}/resolve/main/{FILE}"


class Peer:
    """A node's port: it has what `digests` names, and tells so to a HEAD."""

    def __init__(self) -> None:
        self.digests: set[str] = set()
        peer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                here = urlsplit(self.path).path.removeprefix("/blobs/") in peer.digests
                self.send_response(200 if here else 404)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.address = f"127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def agent(router: RunningRouter, peer: Peer) -> Iterator[FakeAgent]:
    """A node that serves, and holds nothing yet."""
    first = hello("node-1")
    first.hello.peer_addresses.append(peer.address)
    with FakeAgent(router.call.agent, first=first) as agent:
        yield agent


def manifest(http: httpx.Client, name: str) -> dict[str, str]:
    """The first file of a model, and its commit."""
    told = http.get(f"/api/models/registry/{name}/manifest.json").json()
    return {**told["files"][0], "commit": told["revision"]}


def hold(agent: FakeAgent, router: RunningRouter, name: str) -> None:
    """The node says that it holds the file; returns when the router knows."""
    with httpx.Client(base_url=router.http_url) as http:
        file = manifest(http, name)
        held = agent_pb2.HeldFile(
            repo=REPO,
            commit=file["commit"],
            path=file["name"],
            size_bytes=int(file["size_bytes"]),
            sha256=file["sha256"],
            verify_time=Timestamp(seconds=1),
        )
        agent.say(agent_pb2.ConnectRequest(inventory=agent_pb2.Inventory(files=[held])))
        eventually(lambda: http.get(f"/v1/models/{name}").json()["ready"])


# What there is


def test_only_registered_files_are_told_of(http: httpx.Client) -> None:
    name = register(http)
    commit = manifest(http, name)["commit"]

    info = http.get(f"/hub/api/models/{REPO}").json()

    assert (info["id"], info["sha"]) == (REPO, commit)
    assert [one["rfilename"] for one in info["siblings"]] == [FILE]
    assert http.get(f"/hub/api/models/{REPO}/revision/{commit}").json()["sha"] == commit


def test_trees_references_and_paths_are_those_of_the_hub(http: httpx.Client) -> None:
    file = manifest(http, register(http))
    api = f"/hub/api/models/{REPO}"

    tree = http.get(f"{api}/tree/main", params={"recursive": "true", "expand": "true"}).json()
    refs = http.get(f"{api}/refs").json()
    asked = {"paths": [FILE, "tiny-Q8_0.gguf"]}
    infos = http.post(f"{api}/paths-info/{file['commit']}", data=asked).json()

    assert [(one["type"], one["path"]) for one in tree] == [("directory", "Q4"), ("file", FILE)]
    assert tree[1]["lfs"]["oid"] == file["sha256"]
    assert tree[1]["lastCommit"]["id"] == file["commit"]
    assert [(one["name"], one["targetCommit"]) for one in refs["branches"]] == [
        ("main", file["commit"])
    ]
    assert [one["path"] for one in infos] == [FILE]


def test_a_head_request_tells_what_a_client_needs_to_know(http: httpx.Client) -> None:
    file = manifest(http, register(http))

    answer = http.head(PATH)

    assert answer.status_code == 200
    told = answer.headers
    assert (told["X-Repo-Commit"], told["ETag"]) == (file["commit"], f'"{file["sha256"]}"')
    assert (told["X-Linked-Etag"], told["X-Linked-Size"]) == (f'"{file["sha256"]}"', "1000")
    assert (told["Content-Length"], told["Accept-Ranges"]) == ("1000", "bytes")


def test_files_of_several_commits_are_together_in_main(tmp_path: Path) -> None:
    make_repo(tmp_path / "hub", REPO, {FILE: 1000})
    (tmp_path / "router").mkdir()
    with (
        FaultyHub(tmp_path / "hub") as hub,
        RunningRouter(tmp_path / "router", hub.url) as router,
        httpx.Client(base_url=router.http_url, timeout=20) as http,
    ):
        old = manifest(http, register(http))
        make_repo(tmp_path / "hub", REPO, {"tiny-Q2_K.gguf": 500})
        new = manifest(http, register(http, "tiny-Q2_K.gguf"))

        main = http.get(f"/hub/api/models/{REPO}").json()
        files = {one["rfilename"] for one in main["siblings"]}

        assert old["commit"] != new["commit"]
        assert files == {FILE, "tiny-Q2_K.gguf"}
        for file in files:
            told = http.head(f"/hub/{REPO}/resolve/{main['sha']}/{file}")
            assert told.headers["X-Repo-Commit"] == main["sha"]
        only = http.get(f"/hub/api/models/{REPO}/revision/{old['commit']}").json()
        assert [one["rfilename"] for one in only["siblings"]] == [FILE]


def test_older_llama_cpp_learns_which_file_a_tag_means(http: httpx.Client) -> None:
    register(http)

    for tag in ("latest", "Q4_K_M", "q4_k_m"):
        told = http.get(f"/hub/v2/{REPO}/manifests/{tag}").json()
        assert told["ggufFile"]["rfilename"] == FILE
    assert http.get(f"/hub/v2/{REPO}/manifests/Q8_0").status_code == 404


# What there is not


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/hub/api/models/owner/other", "RepoNotFound"),
        ("/hub/owner/other/resolve/main/x.gguf", "RepoNotFound"),
        ("/hub/api/datasets/owner/other", "RepoNotFound"),
        (f"/hub/api/models/{REPO}/revision/v9", "RevisionNotFound"),
        (f"/hub/{REPO}/resolve/{'0' * 40}/{FILE}", "RevisionNotFound"),
        (f"/hub/{REPO}/resolve/main/tiny-Q8_0.gguf", "EntryNotFound"),
        (f"/hub/api/models/{REPO}/tree/main/nowhere", "EntryNotFound"),
    ],
)
def test_what_is_not_registered_is_refused_in_the_hubs_words(
    http: httpx.Client, path: str, code: str
) -> None:
    register(http)

    for method in ("GET", "HEAD"):
        answer = http.request(method, path)
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, code)
    assert "registered" in answer.headers["X-Error-Message"] or code == "EntryNotFound"


def test_the_refusal_says_how_to_register(http: httpx.Client) -> None:
    message = http.get("/hub/api/models/owner/other").json()["error"]

    assert "llm-router model add owner/other" in message


def test_a_model_that_is_removed_is_gone(http: httpx.Client) -> None:
    name = register(http)
    http.delete(f"/api/models/{name}")

    assert http.head(PATH).headers["X-Error-Code"] == "RepoNotFound"


def test_with_pass_through_the_hub_is_asked_instead(hub: FaultyHub, tmp_path: Path) -> None:
    with (
        RunningRouter(tmp_path, hub.url, hub_pass_through=True) as router,
        httpx.Client(base_url=router.http_url) as http,
    ):
        register(http)
        secret = {"Authorization": "Bearer a client's own"}

        elsewhere = http.get("/hub/owner/spare-1-GGUF/resolve/main/a%2Fb?x=1", headers=secret)
        other_file = http.get(f"/hub/{REPO}/resolve/main/tiny-Q8_0.gguf")
        listing = http.get("/hub/api/models?search=spare")
        posted = http.post("/hub/api/models/owner/spare-1-GGUF/paths-info/main")
        ours = http.get(f"/hub/api/models/{REPO}")
        nobody_serves = http.get(PATH)

    assert elsewhere.status_code == 302
    assert elsewhere.headers["Location"] == (f"{hub.url}/owner/spare-1-GGUF/resolve/main/a%2Fb?x=1")
    assert "authorization" not in elsewhere.headers
    assert other_file.headers["Location"] == f"{hub.url}/{REPO}/resolve/main/tiny-Q8_0.gguf"
    assert listing.headers["Location"] == f"{hub.url}/api/models?search=spare"
    assert posted.status_code == 307
    assert ours.status_code == 200
    commit = ours.json()["sha"]
    assert nobody_serves.headers["Location"] == f"{hub.url}/{REPO}/resolve/{commit}/{FILE}"


def test_with_pass_through_the_hubs_own_client_gets_any_file(
    hub: FaultyHub, tmp_path: Path
) -> None:
    (tmp_path / "router").mkdir()
    with RunningRouter(tmp_path / "router", hub.url, hub_pass_through=True) as router:
        found = hf_hub_download(
            "owner/raw",
            "model.safetensors",
            endpoint=f"{router.http_url}/hub",
            cache_dir=tmp_path / "cache",
            token="hf_of_the_client",
        )

    assert Path(found).stat().st_size == 700
    assert [one.authorization for one in hub.requests_for("model.safetensors", "HEAD")] == [None]


@pytest.mark.parametrize("path", [PATH, f"/hub/api/models/{REPO}", f"/blobs/{'0' * 64}"])
def test_pages_of_other_sites_get_nothing(http: httpx.Client, path: str) -> None:
    register(http)

    assert http.get(path, headers={"Host": "evil.example"}).status_code == 403
    assert http.get(path, headers={"Origin": "http://evil.example"}).status_code == 403


# Bytes


def test_a_client_is_sent_to_a_node_that_holds_the_file(
    router: RunningRouter, http: httpx.Client, agent: FakeAgent, peer: Peer
) -> None:
    name = register(http)
    hold(agent, router, name)
    sha256 = manifest(http, name)["sha256"]

    answer = http.get(PATH, headers={"Range": "bytes=5-9"})

    assert answer.status_code == 302
    place = urlsplit(answer.headers["Location"])
    assert (place.netloc, place.path) == (peer.address, f"/blobs/{sha256}")
    key = agent.welcome().peer_key
    assert tickets.is_valid(key, sha256, query=place.query, now=time.time())
    assert answer.headers["X-Linked-Etag"] == f'"{sha256}"'
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_model_that_nobody_holds_is_fetched_by_one_node_for_all_who_ask(
    router: RunningRouter, http: httpx.Client, agent: FakeAgent, peer: Peer
) -> None:
    name = register(http)
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(httpx.get(router.http_url + PATH, timeout=20))

    asking = [threading.Thread(target=ask) for _ in range(10)]
    for one in asking:
        one.start()
    task = agent.assignment(lambda assignment: len(assignment.tasks) == 1).tasks[0]
    peer.digests.add(manifest(http, name)["sha256"])
    agent.report(task, common_pb2.TASK_STATE_DOWNLOADING, done=10)
    for one in asking:
        one.join()

    assert {answer.status_code for answer in answers} == {302}
    assert all(answer.headers["Location"].endswith("&wait=1") for answer in answers)
    assert len(http.get("/api/tasks").json()["tasks"]) == 1


def test_while_no_node_begins_a_client_is_asked_to_come_back(
    hub: FaultyHub, tmp_path: Path, peer: Peer
) -> None:
    with (
        RunningRouter(tmp_path, hub.url, timers=Timers(hub_hold=0.1)) as router,
        httpx.Client(base_url=router.http_url) as http,
    ):
        register(http)
        first = hello("node-1")
        first.hello.peer_addresses.append(peer.address)
        with FakeAgent(router.call.agent, first=first):
            answer = http.get(PATH)

    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "about to fetch" in answer.json()["error"]


def test_what_went_wrong_on_the_node_is_told(
    router: RunningRouter, http: httpx.Client, agent: FakeAgent
) -> None:
    register(http)
    answers: list[httpx.Response] = []
    asking = threading.Thread(
        target=lambda: answers.append(httpx.get(router.http_url + PATH, timeout=20))
    )
    asking.start()
    task = agent.assignment(lambda assignment: len(assignment.tasks) == 1).tasks[0]
    error = common_pb2.TaskError(code="gated", message="the Hub refuses this file")
    agent.report(task, common_pb2.TASK_STATE_FAILED, error=error)
    asking.join()

    assert answers[0].status_code == 503
    assert "the Hub refuses this file" in answers[0].json()["error"]


def test_without_any_node_it_says_so(http: httpx.Client) -> None:
    register(http)

    answer = http.get(PATH)

    assert answer.status_code == 503
    assert "llm-router-agent" in answer.headers["X-Error-Message"]
    assert int(answer.headers["Retry-After"]) > 0


def test_a_request_that_waits_keeps_no_other_waiting(
    router: RunningRouter, http: httpx.Client, agent: FakeAgent, peer: Peer
) -> None:
    name = register(http)
    waiting = [
        threading.Thread(target=httpx.get, args=(router.http_url + PATH,), kwargs={"timeout": 20})
        for _ in range(40)
    ]
    for one in waiting:
        one.start()
    task = agent.assignment(lambda assignment: len(assignment.tasks) == 1).tasks[0]

    assert http.head(PATH).status_code == 200
    assert http.get("/v1/models").status_code == 200

    peer.digests.add(manifest(http, name)["sha256"])
    agent.report(task, common_pb2.TASK_STATE_DOWNLOADING, done=10)
    for one in waiting:
        one.join()
