"""Tables: SCREAMING headers, two spaces between columns, no borders, fitted to the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from cli.render import units

_GAP = 2
_COMFORTABLE = 32  # a flexible column gets so much before others are dropped for it
_NARROWEST = 16

STATUS_STYLES = {
    "online": "green",
    "completed": "green",
    "ready": "green",
    "downloaded": "green",
    "registered": "cyan",
    "fits": "cyan",
    "downloading": "cyan",
    "verifying": "cyan",
    "converting": "cyan",
    "paused": "yellow",
    "pending": "yellow",
    "pending_conversion": "yellow",
    "offline": "red",
    "missing": "red",
    "failed": "red",
    "refused": "red",
    "conversion_failed": "red",
    "cancelled": "dim",
    "available": "dim",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `rank` 0 is always shown; of the others the highest goes first when it is narrow.

    A `flexible` one may be shortened in its middle after that.
    """

    title: str
    right: bool = False
    rank: int = 0
    flexible: bool = False


@dataclass(frozen=True, slots=True)
class Name:
    """A cell with a shorter form that says the same, for narrow terminals."""

    full: str
    short: str


Cell = str | Name


class Table:
    """Rows under headers."""

    def __init__(self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
        self._columns = columns
        self._rows = rows

    def lines(self, width: int | None) -> list[Text]:
        """The lines, at most `width` columns wide where that is possible; None: no limit, all."""
        texts = [[_text(cell, short=False) for cell in row] for row in self._rows]
        shown = list(range(len(self._columns)))
        widths = self._widths(texts)
        if width is not None and _total(widths, shown) > width:
            texts = [[_text(cell, short=True) for cell in row] for row in self._rows]
            widths = self._widths(texts)
            needed = [
                min(w, _COMFORTABLE) if column.flexible else w
                for w, column in zip(widths, self._columns, strict=True)
            ]
            while _total(needed, shown) > width:
                droppable = [i for i in shown if self._columns[i].rank]
                if not droppable:
                    break
                shown.remove(max(droppable, key=lambda i: self._columns[i].rank))
            for i in (i for i in shown if self._columns[i].flexible):
                excess = _total(widths, shown) - width
                if excess > 0:
                    widths[i] = max(min(widths[i], _NARROWEST), widths[i] - excess)
        header = [Text(column.title, style="bold") for column in self._columns]
        styled = [[Text(t, style=STATUS_STYLES.get(t, "")) for t in row] for row in texts]
        return [self._line(row, widths, shown) for row in [header, *styled]]

    def _widths(self, texts: list[list[str]]) -> list[int]:
        return [
            max([len(column.title), *(cell_len(row[i]) for row in texts)])
            for i, column in enumerate(self._columns)
        ]

    def _line(self, row: list[Text], widths: list[int], shown: list[int]) -> Text:
        line = Text(no_wrap=True)
        for i in shown:
            cell = _shortened(row[i], widths[i])
            pad = " " * max(0, widths[i] - cell.cell_len)
            line.append_text(Text(pad) + cell if self._columns[i].right else cell)
            if i != shown[-1]:
                line.append(("" if self._columns[i].right else pad) + " " * _GAP)
        return line


def details(pairs: Sequence[tuple[str, str]]) -> list[Text]:
    """Lines of "name:  value", the values under one another; pairs without a value are left out."""
    kept = [(name, units.plain(value)) for name, value in pairs if value]
    width = max((len(name) for name, _ in kept), default=0) + 1
    return [
        Text.assemble((f"{name}:".ljust(width + _GAP), "bold"), (v, STATUS_STYLES.get(v, "")))
        for name, v in kept
    ]


def _text(cell: Cell, *, short: bool) -> str:
    if isinstance(cell, Name):
        cell = cell.short if short else cell.full
    return units.plain(cell) or "-"


def _total(widths: list[int], shown: list[int]) -> int:
    return sum(widths[i] for i in shown) + _GAP * (len(shown) - 1)


def _shortened(cell: Text, width: int) -> Text:
    if cell.cell_len <= width:
        return cell
    text = cell.plain
    head = (width - 1) // 2
    return Text(f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}", style=cell.style)
