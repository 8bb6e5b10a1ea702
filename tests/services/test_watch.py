"""What watchers are told, and what it costs."""

import asyncio
import threading
from contextlib import aclosing
from typing import Any

import pytest

from router.domain.errors import TaskNotFound, TooManyStreams
from router.domain.tasks import TaskState
from router.services.feeds import Item, Synced
from router.services.watch import Topic, Watchers
from tests.services.world import World

NAME = "hf/o/r/m-Q4_K_M.gguf"


def run(coroutine: Any) -> Any:
    """Runs a test's coroutine, for ten seconds at most."""

    async def bounded() -> Any:
        async with asyncio.timeout(10):
            return await coroutine

    return asyncio.run(bounded())


def _publishing(watchers: Watchers, keys: list[list[str]]) -> list[threading.Thread]:
    """A thread for each list, which tells of its keys."""

    def publish(own: list[str]) -> None:
        for key in own:
            watchers.publish(Topic.TASK, key)

    threads = [threading.Thread(target=publish, args=(own,)) for own in keys]
    for thread in threads:
        thread.start()
    return threads


def test_a_watcher_that_does_not_read_keeps_one_change_for_each_thing() -> None:
    async def story() -> list[tuple[str, int]]:
        watchers = Watchers()
        with watchers.watch(Topic.TASK) as watch:
            for _ in range(1000):
                watchers.publish(Topic.TASK, "a")
                watchers.publish(Topic.TASK, "b")
            watchers.publish(Topic.TASK, "a")
            return [(change.key, change.sequence) for change in await watch.changes()]

    assert run(story()) == [("b", 2000), ("a", 2001)]


def test_a_change_from_any_thread_wakes_a_waiting_watcher_each_time() -> None:
    async def story() -> int:
        watchers = Watchers()
        seen = 0
        with watchers.watch(Topic.TASK, keys=["a"]) as watch:
            threads = _publishing(watchers, [["a"] * 500] * 4)
            while seen < 2000:
                for change in await watch.changes():
                    seen = change.sequence
            for thread in threads:
                thread.join()
        return seen

    assert run(story()) == 2000


def test_sequences_arrive_in_order_however_many_threads_publish() -> None:
    async def story() -> list[int]:
        watchers = Watchers()
        seen: list[int] = []
        with watchers.watch(Topic.TASK) as watch:
            threads = _publishing(watchers, [[f"{n}-{i}" for i in range(300)] for n in range(4)])
            while len(seen) < 1200:
                seen += [change.sequence for change in await watch.changes()]
            for thread in threads:
                thread.join()
        return seen

    seen = run(story())
    assert seen == sorted(seen)


def test_a_closed_watch_is_forgotten_and_so_is_one_whose_loop_is_gone() -> None:
    watchers = Watchers()

    async def leave() -> None:
        with watchers.watch(Topic.TASK, keys=["a"]):
            pass
        watchers.watch(Topic.TASK)  # never closed

    run(leave())
    watchers.publish(Topic.TASK, "a")

    assert not watchers._watches


def test_a_watcher_hears_of_nothing_else() -> None:
    async def story() -> list[str]:
        watchers = Watchers()
        with watchers.watch(Topic.TASK, keys=["a"]) as watch:
            watchers.publish(Topic.TASK, "b")
            watchers.publish(Topic.NODE, "a")
            watchers.publish(Topic.TASK, "a")
            return [change.key for change in await watch.changes()]

    assert run(story()) == ["a"]


def test_news_come_after_the_commit_and_not_at_all_after_a_rollback(world: World) -> None:
    world.register()
    world.connect()
    heard: list[str] = []
    publish = world.watchers.publish

    def listen(topic: Topic, key: str) -> None:
        if topic is Topic.TASK:
            heard.append(world.store.task(key).state.value)  # type: ignore[union-attr]
        publish(topic, key)

    world.watchers.publish = listen  # type: ignore[method-assign]
    task_id = world.order().order.task_ids[0]
    with pytest.raises(RuntimeError), world.store.transaction():
        world.downloads.pause(task_id)
        raise RuntimeError("the caller changes its mind")
    world.downloads.cancel(task_id)

    assert heard == ["pending", "cancelled"]
    assert world.downloads.task(task_id).task.state is TaskState.CANCELLED


def test_a_feed_sends_everything_then_that_it_did_then_changes(world: World) -> None:
    world.register()

    async def story() -> list[object]:
        told: list[object] = []
        async with aclosing(world.feeds.follow(Topic.MODEL)) as feed:
            async for item in feed:
                told.append("synced" if isinstance(item, Synced) else (item.key, item.view is None))
                if len(told) == 2:
                    await asyncio.to_thread(world.models.unregister, NAME)
                if len(told) == 3:
                    return told
        return told

    assert run(story()) == [(NAME, False), "synced", (NAME, True)]


def test_a_feed_of_models_and_tasks_tells_why_a_node_failed(world: World) -> None:
    world.register()
    session = world.connect()
    [task_id] = world.order().order.task_ids
    world.report(session, task_id, TaskState.FAILED)

    async def snapshot(*topics: Topic) -> list[str]:
        told: list[str] = []
        async with aclosing(world.feeds.follow(*topics)) as feed:
            async for item in feed:
                if isinstance(item, Synced):
                    return told
                told.append(item.key)
        return told

    assert run(snapshot(Topic.MODEL, Topic.TASK)) == [NAME, task_id]
    assert run(snapshot(Topic.TASK)) == []


def test_a_reader_who_is_up_to_date_gets_no_snapshot_and_misses_nothing(world: World) -> None:
    world.register()

    async def first_of(since: int) -> Item | Synced:
        async with aclosing(world.feeds.follow(Topic.MODEL, since=since)) as feed:
            return await anext(feed)

    now = world.watchers.sequence
    up_to_date = run(first_of(now))
    world.connect()
    behind = run(first_of(now))

    assert isinstance(up_to_date, Synced)
    assert isinstance(behind, Item)


def test_a_watch_of_named_tasks_ends_with_the_last_of_them(world: World) -> None:
    world.register()
    session = world.connect()
    second = world.connect("node-2")
    first_id, second_id = world.order().order.task_ids

    async def story() -> list[tuple[str, str]]:
        told = []
        async with aclosing(world.feeds.follow_tasks([first_id, second_id, first_id])) as feed:
            async for view in feed:
                told.append((view.task.node_id, view.task.state.value))
                if len(told) == 2:
                    await asyncio.to_thread(world.complete, session, first_id)
                if told[-1] == ("node-1", "completed"):
                    await asyncio.to_thread(world.downloads.cancel, second_id)
        return told

    told = run(story())
    assert second.node_id == "node-2"
    assert told[:2] == [("node-1", "pending"), ("node-2", "pending")]
    assert told[-1] == ("node-2", "cancelled")
    assert world.feeds.open_streams == 0


def test_a_watch_of_an_ended_task_shows_it_and_ends(world: World) -> None:
    world.register()
    session = world.connect()
    task_id = world.order().order.task_ids[0]
    world.complete(session, task_id)

    async def story() -> list[str]:
        return [view.task.state.value async for view in world.feeds.follow_tasks([task_id])]

    assert run(story()) == ["completed"]


def test_a_watch_ends_when_the_node_of_its_last_task_is_removed(world: World) -> None:
    world.register()
    world.sessions.close(world.connect())
    task_id = world.order().order.task_ids[0]

    async def story() -> int:
        told = 0
        async for _ in world.feeds.follow_tasks([task_id]):
            told += 1
            await asyncio.to_thread(world.nodes.remove, "node-1")
        return told

    assert run(story()) == 1


def test_a_watch_of_an_unknown_task_is_refused_and_leaves_no_stream_open(world: World) -> None:
    async def story() -> None:
        async for _ in world.feeds.follow_tasks(["task-nobody"]):
            raise AssertionError("nothing to show")

    with pytest.raises(TaskNotFound):
        run(story())
    assert world.feeds.open_streams == 0


def test_feeds_are_bounded_and_one_that_is_left_makes_room(tmp_path: Any) -> None:
    world = World(tmp_path, max_streams=1)

    async def story() -> None:
        async with aclosing(world.feeds.follow(Topic.NODE)) as feed:
            await anext(feed)
            with pytest.raises(TooManyStreams):
                world.feeds.require_room()
            with pytest.raises(TooManyStreams):
                await anext(world.feeds.follow(Topic.NODE))
        world.feeds.require_room()

    run(story())


def test_a_change_of_many_nodes_at_once_shows_each_as_it_is(world: World) -> None:
    async def shown() -> dict[str, bool]:
        async with aclosing(world.feeds.follow(Topic.NODE)) as feed:
            assert isinstance(await anext(feed), Synced)
            for number in range(20):
                world.connect(f"node-{number}")
            world.watchers.publish(Topic.NODE, "gone")
            found = [await anext(feed) for _ in range(21)]
        return {item.key: item.view is not None for item in found if isinstance(item, Item)}

    assert asyncio.run(shown()) == {f"node-{number}": True for number in range(20)} | {
        "gone": False
    }
