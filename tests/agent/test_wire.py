"""What the router says, checked before it is believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.runner import Failure, Phase, TaskStatus
from agent.store import BytesFrom
from agent.wire import assignment_from_pb, manifest_from_pb, manifest_to_pb, task_to_pb
from protos.llmrouter.v1 import agent_pb2, common_pb2
from protos.names import InvalidName
from tests.agent.support import manifest, task

GOOD = manifest()


def broken(**fields: str) -> common_pb2.Manifest:
    message = manifest_to_pb(GOOD)
    for name, value in fields.items():
        target = message if name in ("repo", "revision", "commit") else message.files[0]
        setattr(target, name, value)
    return message


def test_a_manifest_survives_the_way_there_and_back() -> None:
    assert manifest_from_pb(manifest_to_pb(GOOD)) == GOOD


@pytest.mark.parametrize(
    "message",
    [
        broken(repo="../../etc"),
        broken(path="../../.ssh/authorized_keys"),
        broken(path="/etc/passwd"),
        broken(revision="../x"),
        broken(commit="main"),
        broken(sha256="abc"),
        broken(url="file:///etc/passwd"),
        common_pb2.Manifest(repo="acme/tiny", revision="main", commit="0" * 40),
    ],
)
def test_a_manifest_that_breaks_a_rule_is_refused(message: common_pb2.Manifest) -> None:
    with pytest.raises(InvalidName):
        manifest_from_pb(message)


def test_a_manifest_that_names_a_file_twice_is_refused() -> None:
    message = manifest_to_pb(GOOD)
    message.files.append(message.files[0])

    with pytest.raises(InvalidName):
        manifest_from_pb(message)


def test_a_malformed_task_is_refused_alone() -> None:
    bad = agent_pb2.TaskAssignment(task_id="bad", attempt=2, manifest=broken(path="../x"))

    assignment = assignment_from_pb(agent_pb2.Assignment(tasks=[bad, task(GOOD)]), epoch=3)

    assert [order.task_id for order in assignment.tasks] == ["t1"]
    assert [(refused.task_id, refused.attempt) for refused in assignment.refused] == [("bad", 2)]
    assert "../x" in assignment.refused[0].reason


def test_what_a_task_waits_for_comes_through_and_keeps_it_from_running() -> None:
    message = task(GOOD)
    message.hold = "waits for 22:00"

    (held,) = assignment_from_pb(agent_pb2.Assignment(tasks=[message]), epoch=1).tasks

    assert (held.hold, held.may_run) == ("waits for 22:00", False)


def test_nobody_knows_which_partials_stay_when_a_part_of_the_message_is_malformed() -> None:
    kept = agent_pb2.Assignment(keep_partials=[broken(repo="x")])
    bad_task = agent_pb2.Assignment(
        tasks=[agent_pb2.TaskAssignment(task_id="bad", manifest=broken(repo="x"))]
    )

    assert not assignment_from_pb(kept, 1).keep_partials_known
    assert not assignment_from_pb(bad_task, 1).keep_partials_known
    assert assignment_from_pb(agent_pb2.Assignment(), 1).keep_partials_known


def test_an_eviction_by_a_malformed_manifest_is_left_out() -> None:
    message = agent_pb2.Assignment(
        evictions=[
            agent_pb2.Eviction(eviction_id="bad", manifest=broken(path="../x")),
            agent_pb2.Eviction(eviction_id="good", manifest=manifest_to_pb(GOOD)),
        ]
    )

    assignment = assignment_from_pb(message, 1)

    assert [eviction.eviction_id for eviction in assignment.evictions] == ["good"]


def test_an_unset_rate_is_not_a_rate_of_zero() -> None:
    unset = assignment_from_pb(agent_pb2.Assignment(), 1)
    lifted = assignment_from_pb(
        agent_pb2.Assignment(max_rate_bytes_per_second=0, max_upload_rate_bytes_per_second=0), 1
    )

    assert (unset.max_rate, unset.max_upload_rate) == (None, None)
    assert (lifted.max_rate, lifted.max_upload_rate) == (0, 0)


@given(st.binary(max_size=300))
def test_no_bytes_that_parse_crash_the_agent(data: bytes) -> None:
    message = agent_pb2.Assignment()
    try:
        message.ParseFromString(data)
    except Exception:
        return

    assignment_from_pb(message, 1)


def test_a_report_carries_every_number() -> None:
    status = TaskStatus(
        "t1",
        2,
        Phase.DOWNLOADING,
        done=30,
        total=100,
        bytes_from=BytesFrom(hub=20, disk=10),
        speed=10.0,
    )

    report = task_to_pb(status)

    assert (report.task_id, report.attempt) == ("t1", 2)
    assert report.state == common_pb2.TASK_STATE_DOWNLOADING
    assert (report.bytes_done, report.bytes_total) == (30, 100)
    assert report.bytes_from == common_pb2.BytesBySource(hub=20, disk=10)
    assert report.speed_bytes_per_second == 10
    assert report.eta.ToSeconds() == 7
    assert not report.HasField("error")


@pytest.mark.parametrize(
    "status",
    [
        TaskStatus("t1", 1, Phase.DOWNLOADING, done=1, total=9, speed=0.0),
        TaskStatus("t1", 1, Phase.DOWNLOADING, done=1, total=9, speed=5.0, note="waiting"),
        TaskStatus("t1", 1, Phase.VERIFYING, done=9, total=9, speed=5.0),
    ],
)
def test_an_end_is_not_foretold_when_nobody_can(status: TaskStatus) -> None:
    assert not task_to_pb(status).HasField("eta")


def test_a_failure_is_told_whole() -> None:
    failure = Failure("disk_full", "no room", retryable=True)

    report = task_to_pb(TaskStatus("t1", 1, Phase.FAILED, failure=failure))

    assert report.state == common_pb2.TASK_STATE_FAILED
    assert report.error == common_pb2.TaskError(code="disk_full", message="no room", retryable=True)
