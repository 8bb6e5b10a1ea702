"""Where a command's answer goes: stdout, in one of three forms; words to the person: stderr."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import click
from rich.console import Console
from rich.text import Text

from cli.render import units
from cli.render.rest import Json
from cli.render.table import Table

_UNBOUNDED = 1_000_000


@dataclass(frozen=True, slots=True)
class Output:
    """`form` is "table" or "json"; `quiet` beats both: ids alone."""

    form: str
    quiet: bool

    def answer(self, ids: Sequence[str], data: Json, *parts: Table | Sequence[Text]) -> None:
        """Writes the answer: `ids` one a line, `data` as JSON, or `parts` with a line between."""
        if self.quiet:
            for name in ids:
                click.echo(name)
        elif self.form == "json":
            click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        else:
            self._print(parts)

    def done(self, text: str) -> None:
        """Tells what was done, when the answer is for a person."""
        if not self.quiet and self.form == "table":
            click.echo(units.plain(text))

    def note(self, text: str) -> None:
        """Says on stderr what a person should know beside the answer."""
        if not self.quiet:
            click.echo(units.plain(text), err=True)

    def problem(self, text: str, step: str) -> None:
        """Says on stderr what went wrong and the command that comes next, however quiet."""
        click.echo(f"{click.style('Error:', fg='red', bold=True)} {units.plain(text)}", err=True)
        click.echo(f"{click.style('Next: ', bold=True)} {units.plain(step)}", err=True)

    def _print(self, parts: Sequence[Table | Sequence[Text]]) -> None:
        terminal = sys.stdout.isatty()
        console = Console(highlight=False) if terminal else Console(width=_UNBOUNDED)
        first = True
        for part in parts:
            lines = (
                part.lines(console.width if terminal else None) if isinstance(part, Table) else part
            )
            if lines and not first:
                console.print()
            for line in lines:
                console.print(line, soft_wrap=True, highlight=False)
                first = False
