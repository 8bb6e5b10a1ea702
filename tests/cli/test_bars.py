"""The bars, on a real pseudo-terminal and as a picture."""

import threading

import pytest

from cli.render.bars import choose_rows
from protos.llmrouter.v1 import download_pb2, registration_pb2
from tests.cli.fake_router import FakeRouter
from tests.cli.samples import (
    DOWNLOADING,
    GB,
    MODEL,
    PAUSED,
    PENDING,
    VERIFYING,
    completed,
    failed,
    model,
    moving,
    order,
    task,
)
from tests.cli.terminal import Terminal
from tests.support import eventually

_DOWNLOAD = ["model", "download", MODEL, "--all"]


def _line(screen: str, start: str) -> str:
    return next((line for line in screen.splitlines() if line.startswith(start)), "")


def _script(
    router: FakeRouter, during: list[download_pb2.Task], end: list[download_pb2.Task]
) -> threading.Event:
    """Orders these tasks; they stay as they are until the event is set, then they end so."""
    over = threading.Event()
    router.answers["StartDownload"] = download_pb2.StartDownloadResponse(
        order=order(*[task(number + 1, PENDING) for number in range(len(during))])
    )
    router.watch = [[*during, lambda: over.wait(60), *end]]
    return over


@pytest.mark.parametrize("columns", [80, 120])
def test_each_node_has_a_bar_that_fits_the_terminal(router: FakeRouter, columns: int) -> None:
    offline = task(3, PENDING, 0)
    offline.node_online = False
    during = [
        moving(1, GB // 2, 12_300_000, 122),
        task(2, VERIFYING, 2 * GB),
        offline,
        task(4, PAUSED, GB),
    ]
    over = _script(router, during, [completed(number) for number in (1, 2, 3, 4)])

    with Terminal(_DOWNLOAD, router.address, columns=columns, lines=24) as terminal:
        eventually(lambda: "waits: offline" in terminal.text() and "paused" in terminal.text())
        screen = terminal.text()
        over.set()
        code = terminal.exit_code()
        last = terminal.text()

    assert _line(screen, "hf/") == f"{MODEL} → 4 nodes"
    first = _line(screen, "node-1")
    assert "━━━" in first
    assert "25%      0.5 / 2.0 GB" in first
    assert "12.3 MB/s    2m02s" in first
    assert ("hub 100%" in first) == (columns == 120)
    assert "100%" in _line(screen, "node-2") and "verifying" in _line(screen, "node-2")
    assert "0%" in _line(screen, "node-3")
    assert "50%" in _line(screen, "node-4")
    assert "0 of 4 done · 43% (3.5 / 8.0 GB) · 12.3 MB/s" in screen
    assert len({line.index("━") for line in screen.splitlines() if "━" in line}) == 1
    assert code == 0
    assert last.splitlines()[-1] == "4 of 4 completed; bytes from hub 8.0 GB"
    assert last.count("node-1") == 1, "the bars are drawn in place"


def test_twenty_five_nodes_do_not_scroll(router: FakeRouter) -> None:
    during = [moving(number, GB, number * 1_000_000, 100) for number in range(1, 26)]
    over = _script(router, during, [completed(number) for number in range(1, 26)])

    with Terminal(_DOWNLOAD, router.address, columns=80, lines=24) as terminal:
        eventually(lambda: "and 13 more: 13 downloading" in terminal.text())
        screen = terminal.text()
        over.set()
        code = terminal.exit_code()
        scrolled = terminal.scrolled()

    assert len([line for line in screen.splitlines() if line.startswith("node-")]) == 12
    assert "325.0 MB/s" in screen
    assert scrolled == 0
    assert code == 0


def test_a_low_terminal_shows_fewer_rows(router: FakeRouter) -> None:
    during = [moving(number, GB, 1_000_000, 100) for number in range(1, 9)]
    over = _script(router, during, [completed(number) for number in range(1, 9)])

    with Terminal(_DOWNLOAD, router.address, columns=80, lines=8) as terminal:
        eventually(lambda: "and 4 more" in terminal.text())
        scrolled = terminal.scrolled()
        over.set()
        terminal.exit_code()

    assert scrolled == 0


def test_a_failure_shows_in_its_row_and_with_its_reason_at_the_end(router: FakeRouter) -> None:
    over = _script(router, [moving(1, GB, 1, 1)], [failed(1)])
    over.set()

    with Terminal(_DOWNLOAD, router.address, columns=120, lines=24) as terminal:
        code = terminal.exit_code()
        screen = terminal.text()

    assert code == 1
    assert "failed: digest_mismatch" in _line(screen, "node-1")
    assert "Error: node-1: the file's SHA-256 is not the registered one" in screen
    assert screen.splitlines()[-1] == "Next:  llm-router task retry t-1"


def test_a_router_that_goes_away_is_told_under_the_bars_until_it_is_back(
    router: FakeRouter,
) -> None:
    over = _script(router, [moving(1, GB, 1, 1)], [])
    router.watch.append([completed(1)])

    with Terminal(_DOWNLOAD, router.address, columns=80, lines=24) as terminal:
        eventually(lambda: "50%" in terminal.text())
        over.set()
        router.stop()
        eventually(lambda: "the router is away; the nodes go on" in terminal.text())
        router.start()
        code = terminal.exit_code()
        screen = terminal.text()

    assert code == 0
    assert "the router is away" not in screen


def test_ctrl_c_leaves_the_bars_and_gives_the_cursor_back(router: FakeRouter) -> None:
    over = _script(router, [moving(1, GB, 1, 1)], [])

    with Terminal(_DOWNLOAD, router.address, columns=80, lines=24) as terminal:
        eventually(lambda: "50%" in terminal.text())
        terminal.interrupt()
        code = terminal.exit_code()
        screen = terminal.text()
        over.set()

    assert code == 130
    assert "node-1" in screen
    assert screen.splitlines()[-1].endswith("Come back with: llm-router task watch t-1")
    assert terminal.raw.rindex(b"\x1b[?25h") > terminal.raw.rindex(b"\x1b[?25l")


def test_tables_fit_the_terminal(router: FakeRouter) -> None:
    router.answers["ListModels"] = registration_pb2.ListModelsResponse(models=[model()])

    with Terminal(
        ["model", "list", "--registered"], router.address, columns=60, lines=24
    ) as terminal:
        terminal.exit_code()
        header, row = terminal.text().splitlines()

    assert header.split()[0] == "NAME"
    assert row.startswith("acme/tiny-GGUF:Q4_K_M ")


def test_rows_that_move_keep_their_place() -> None:
    tasks = {f"t-{n}": moving(n, 0, speed=n, left=1) for n in (1, 2, 3)}
    before = choose_rows(tasks, (), room=2)
    tasks["t-1"] = moving(1, 0, speed=100, left=1)

    after = choose_rows(tasks, before, room=2)

    assert before == after == ("t-2", "t-3")


def test_rows_are_in_the_order_in_which_people_count() -> None:
    tasks = {f"t-{n}": moving(n, 0, speed=n, left=1) for n in (10, 2, 1)}

    assert choose_rows(tasks, (), room=3) == ("t-1", "t-2", "t-10")


def test_a_row_whose_task_ended_makes_room_for_one_that_moves() -> None:
    tasks = {f"t-{n}": moving(n, 0, speed=n, left=1) for n in (1, 2, 3)}
    tasks["t-3"] = completed(3)

    assert choose_rows(tasks, ("t-2", "t-3"), room=2) == ("t-1", "t-2")


def test_a_failed_task_is_always_in_sight() -> None:
    tasks = {f"t-{n}": task(n, DOWNLOADING) for n in range(1, 9)}
    tasks["t-8"] = failed(8)

    assert "t-8" in choose_rows(tasks, ("t-1", "t-2"), room=2)
