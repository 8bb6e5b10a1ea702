"""The journal never says more than what was appended, whatever happens to its file."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.store import Origin
from agent.store.journal import Journal, Range, read
from agent.store.spans import Spans

SIZE = 1000
IDENTITY = "9f" * 32
UNHURRIED = settings(deadline=None, max_examples=50)  # the disk may be busy

ranges = st.builds(
    lambda start, length, origin: Range(start, min(SIZE, start + length), origin),
    st.integers(0, SIZE - 1),
    st.integers(1, SIZE),
    st.sampled_from(Origin),
)


def written(folder: str, entries: list[Range]) -> Path:
    """A journal on disk."""
    path = Path(folder) / "x.journal"
    journal = Journal.create(path, SIZE, IDENTITY)
    for entry in entries:
        journal.append([entry])
    journal.close()
    return path


@UNHURRIED
@given(st.lists(ranges, max_size=8))
def test_what_was_appended_is_read_back(entries: list[Range]) -> None:
    with TemporaryDirectory() as folder:
        contents = read(written(folder, entries), SIZE, IDENTITY)

    assert contents is not None
    assert list(contents.ranges) == entries


@UNHURRIED
@given(st.lists(ranges, max_size=8), st.data())
def test_a_torn_journal_says_a_beginning_of_the_truth_and_can_be_continued(
    entries: list[Range], data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        path = written(folder, entries)
        raw = path.read_bytes()
        path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
        torn = read(path, SIZE, IDENTITY)
        if torn is None:
            return
        last = Range(0, 1, Origin.PEER)
        journal = Journal.resume(path, torn)
        journal.append([last])
        journal.close()
        continued = read(path, SIZE, IDENTITY)

    assert list(torn.ranges) == entries[: len(torn.ranges)]
    assert continued is not None
    assert continued.ranges == (*torn.ranges, last)


@UNHURRIED
@given(st.lists(ranges, min_size=1, max_size=8), st.data())
def test_a_damaged_byte_never_adds_a_range(entries: list[Range], data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        path = written(folder, entries)
        raw = bytearray(path.read_bytes())
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(raw)
        contents = read(path, SIZE, IDENTITY)

    assert contents is None or set(contents.ranges) <= set(entries)


def test_a_journal_of_another_file_says_nothing(tmp_path: Path) -> None:
    path = written(str(tmp_path), [Range(0, 10, Origin.HUB)])

    assert read(path, SIZE + 1, IDENTITY) is None
    assert read(path, SIZE, "0" * 64) is None
    assert read(tmp_path / "missing", SIZE, IDENTITY) is None


@UNHURRIED
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12))
def test_spans_are_a_set_of_bytes(pairs: list[tuple[int, int]]) -> None:
    spans, model = Spans(), set[int]()
    for start, end in pairs:
        new = spans.add(start, end)
        added = set(range(start, end)) - model
        model |= added
        assert new == len(added)

    assert {b for start, end in spans for b in range(start, end)} == model
    assert spans.total == len(model)
    assert {b for s, e in spans.missing(70) for b in range(s, e)} == set(range(70)) - model
    assert spans.frontier == next(b for b in range(71) if b not in model)
    assert all(a[1] < b[0] for a, b in zip(list(spans), list(spans)[1:], strict=False))
