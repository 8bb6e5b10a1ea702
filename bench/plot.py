"""Bars as an SVG file, drawn by hand: no library is needed, and the file is small and readable."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

_LABEL, _WIDTH, _VALUE = 250, 420, 190
_BAR, _STEP, _HEAD = 14, 20, 34
_OURS, _OTHERS = "#2f6f4f", "#9aa5b1"


@dataclass(frozen=True)
class Bar:
    """One value with its spread; `ours` stands out."""

    label: str
    value: float
    low: float
    high: float
    note: str
    ours: bool


def write_bars(path: Path, title: str, groups: Sequence[tuple[str, Sequence[Bar]]]) -> None:
    """Writes groups of horizontal bars; each group has a scale of its own."""
    body: list[str] = []
    top = 40
    for name, bars in groups:
        body.append(f'<text x="12" y="{top + 16}" font-weight="bold">{escape(name)}</text>')
        top += _HEAD - 8
        longest = max(bar.high for bar in bars) or 1.0
        for bar in bars:
            body += _draw(bar, top, longest)
            top += _STEP
        top += 12
    width = _LABEL + _WIDTH + _VALUE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}" '
        f'viewBox="0 0 {width} {top}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="{width}" height="{top}" fill="#ffffff"/>\n'
        f'<text x="12" y="24" font-size="15">{escape(title)}</text>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _draw(bar: Bar, top: int, longest: float) -> list[str]:
    def at(value: float) -> float:
        return round(_LABEL + _WIDTH * value / longest, 1)

    middle = top + _BAR / 2
    colour = _OURS if bar.ours else _OTHERS
    return [
        f'<text x="{_LABEL - 8}" y="{top + 11}" text-anchor="end">{escape(bar.label)}</text>',
        f'<rect x="{_LABEL}" y="{top}" width="{round(at(bar.value) - _LABEL, 1)}" '
        f'height="{_BAR}" fill="{colour}"/>',
        f'<path d="M{at(bar.low)} {middle}H{at(bar.high)}" stroke="#222222"/>',
        f'<text x="{_LABEL + _WIDTH + 8}" y="{top + 11}">{escape(bar.note)}</text>',
    ]
