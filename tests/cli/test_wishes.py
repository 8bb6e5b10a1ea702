"""Plans, and orders with options: what is asked for, what is refused, and how it is shown."""

import pytest
from google.protobuf.duration_pb2 import Duration

from protos.llmrouter.v1 import download_pb2
from tests.cli.conftest import Cli
from tests.cli.fake_router import FakeRouter
from tests.cli.samples import COMPLETED, FAILED, GB, MODEL, completed, order, task

DOWNLOAD = ("model", "download", MODEL)


@pytest.mark.parametrize(
    ("words", "wish"),
    [
        (
            ("--label", "gpu=a100", "--label", "row=1", "--follow"),
            download_pb2.StartDownloadRequest(
                target=download_pb2.ORDER_TARGET_LABELS,
                label_selector={"gpu": "a100", "row": "1"},
                options=download_pb2.OrderOptions(follow=True),
            ),
        ),
        (
            ("--all", "--canary", "1", "--then", "25%", "--max-failures", "2"),
            download_pb2.StartDownloadRequest(
                target=download_pb2.ORDER_TARGET_ALL,
                options=download_pb2.OrderOptions(
                    rollout=download_pb2.Rollout(canary_nodes=1, wave_percent=25, max_failures=2)
                ),
            ),
        ),
        (
            ("--all", "--then", "3"),
            download_pb2.StartDownloadRequest(
                target=download_pb2.ORDER_TARGET_ALL,
                options=download_pb2.OrderOptions(rollout=download_pb2.Rollout(wave_nodes=3)),
            ),
        ),
        (
            ("--all", "--window", "22:00-06:00", "--time-zone", "Europe/Berlin"),
            download_pb2.StartDownloadRequest(
                target=download_pb2.ORDER_TARGET_ALL,
                options=download_pb2.OrderOptions(
                    window=download_pb2.Window(
                        start="22:00", end="06:00", time_zone="Europe/Berlin"
                    )
                ),
            ),
        ),
        (
            ("--node", "a", "--replace", "o/old:Q8_0", "--plan", "plan-7"),
            download_pb2.StartDownloadRequest(
                target=download_pb2.ORDER_TARGET_SPECIFIC,
                node_ids=["a"],
                options=download_pb2.OrderOptions(replaces="o/old:Q8_0"),
                plan_id="plan-7",
            ),
        ),
    ],
    ids=["labels", "waves", "number", "window", "replace"],
)
def test_a_wish_is_asked_for_as_it_was_typed(
    router: FakeRouter, cli: Cli, words: tuple[str, ...], wish: download_pb2.StartDownloadRequest
) -> None:
    router.answers["StartDownload"] = download_pb2.StartDownloadResponse(order=order(task()))
    wish.model_name, wish.request_id = MODEL, "r"

    cli(*DOWNLOAD, *words, "--detach", "--request-id", "r")

    assert router.requests[-1] == wish


@pytest.mark.parametrize(
    "words",
    [
        ("--all", "--label", "a=b"),
        ("--label", "nonsense"),
        ("--all", "--max-failures", "2"),
        ("--all", "--canary", "3000000000"),
        ("--all", "--canary", "1", "--max-failures", "3000000000"),
        ("--all", "--priority", "3000000000"),
        ("--all", "--then", "some"),
        ("--all", "--then", "0"),
        ("--all", "--canary", "0"),
        ("--all", "--window", "at night"),
        ("--all", "--time-zone", "Europe/Berlin"),
    ],
    ids=" ".join,
)
def test_a_wish_that_makes_no_sense_is_a_usage_error(
    router: FakeRouter, cli: Cli, words: tuple[str, ...]
) -> None:
    result = cli(*DOWNLOAD, *words)

    assert result.exit_code == 2
    assert router.requests == []


def test_a_plan_tells_the_totals_and_how_to_confirm_it(router: FakeRouter, cli: Cli) -> None:
    router.answers["PlanDownload"] = download_pb2.PlanDownloadResponse(
        model_name=MODEL,
        line_bytes=2 * GB,
        plan_id="plan-7",
        expected_time=Duration(seconds=130),
        nodes=[
            download_pb2.NodePlan(
                node_name="a",
                verdict=download_pb2.PLAN_VERDICT_FITS,
                needed_bytes=2 * GB,
                hub_bytes=2 * GB,
                expected_time=Duration(seconds=130),
                required_memory_bytes=3 * GB,
                fits_memory=True,
            ),
            download_pb2.NodePlan(
                node_name="b",
                verdict=download_pb2.PLAN_VERDICT_FITS,
                needed_bytes=2 * GB,
                peer_bytes=2 * GB,
                required_memory_bytes=3 * GB,
            ),
            download_pb2.NodePlan(node_name="c", verdict=download_pb2.PLAN_VERDICT_REFUSED),
        ],
    )

    result = cli("model", "plan", MODEL, "--label", "gpu=a100")

    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[1] == "a fits 2.0 GB 0 B 2.0 GB - 2m10s enough -"
    assert lines[2] == "b fits 2.0 GB 0 B - 2.0 GB - too little -"
    assert (
        "2 to fetch, 1 refused: the Hub would serve 2.0 GB for all nodes together, "
        "other nodes 2.0 GB; about 2m10s." in result.stderr
    )
    assert f"model download {MODEL} --label gpu=a100 --plan plan-7" in result.stderr


def in_waves(*tasks: download_pb2.Task, **fields: object) -> download_pb2.Order:
    """An order in waves."""
    made = order(*tasks)
    made.options.rollout.canary_nodes = 1
    made.MergeFrom(download_pb2.Order(**fields))  # type: ignore[arg-type]
    return made


def test_a_download_follows_every_wave_to_the_end_of_the_order(
    router: FakeRouter, cli: Cli
) -> None:
    waiting = [download_pb2.WaitingNode(node_id="id-2", node_name="node-2")]
    stages = [
        in_waves(task(1), waiting=waiting),
        in_waves(completed(1), task(2)),
        in_waves(completed(1), completed(2), state=download_pb2.ORDER_STATE_COMPLETED, ended=True),
    ]
    router.answers["StartDownload"] = download_pb2.StartDownloadResponse(order=stages[0])

    def look(_: object) -> download_pb2.GetOrderResponse:
        return download_pb2.GetOrderResponse(order=stages[0] if len(stages) == 1 else stages.pop(0))

    router.answers["GetOrder"] = look
    other = task(9, order_id="o-other")
    router.watch = [[task(1), other, completed(1), task(2), completed(2), *[other] * 3]]

    result = cli(*DOWNLOAD, "--all", "--canary", "1")

    assert result.exit_code == 0
    assert "2 of 2 completed" in result.stderr
    assert "node-9" not in result.stderr


def test_an_order_that_stopped_fails_and_says_why(router: FakeRouter, cli: Cli) -> None:
    failed = task(1, FAILED, error={"code": "disk_error", "message": "broken"})
    stopped = in_waves(
        failed,
        state=download_pb2.ORDER_STATE_STOPPED,
        ended=True,
        note="stopped: node-1 failed, more than the 0 allowed",
    )
    router.answers["StartDownload"] = download_pb2.StartDownloadResponse(order=in_waves(task(1)))
    router.answers["GetOrder"] = download_pb2.GetOrderResponse(order=stopped)
    router.watch = [[failed]]

    result = cli(*DOWNLOAD, "--all", "--canary", "1")

    assert result.exit_code == 1
    assert "the order stopped: node-1 failed" in result.stderr
    assert "llm-router order show o-1" in result.stderr


def test_an_order_without_a_node_yet_is_told_and_not_followed(router: FakeRouter, cli: Cli) -> None:
    made = order()
    made.note = "waits for a node with gpu=a100 to join"
    router.answers["StartDownload"] = download_pb2.StartDownloadResponse(order=made)

    result = cli(*DOWNLOAD, "--label", "gpu=a100", "--follow")

    assert result.exit_code == 0
    assert "The order waits for a node with gpu=a100 to join." in result.stderr


def test_an_order_shows_what_was_wished_and_why_a_node_is_missing(
    router: FakeRouter, cli: Cli
) -> None:
    shown = in_waves(
        task(1, COMPLETED),
        task(2, FAILED, error={"code": "disk_error", "message": "broken"}),
        task(3, node_online=False),
        waiting=[
            download_pb2.WaitingNode(
                node_id="id-4", node_name="node-4", reason="its wave begins when 1 task has ended"
            )
        ],
        completed_count=1,
    )
    shown.tasks[2].node_online = False
    shown.options.rollout.wave_percent = 25
    shown.options.follow = True
    shown.options.window.MergeFrom(download_pb2.Window(start="22:00", end="06:00"))
    shown.options.replaces = "hf/o/old/m.gguf"
    router.answers["GetOrder"] = download_pb2.GetOrderResponse(order=shown)

    said = cli("order", "show", "o-1").stdout

    for words in (
        "1 node first, 25% of all at a time, at most 0 may fail",
        "22:00-06:00 (the time of the router)",
        "hf/o/old/m.gguf",
        "nodes that join later get it, too",
        " nodes when it was made)",
        "1 of 4 nodes",
        "node-2   failed: broken (disk_error)",
        "node-3   offline: its task waits until it is back",
        "node-4   its wave begins when 1 task has ended",
    ):
        assert words in said, said
