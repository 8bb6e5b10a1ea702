"""What one run of the command works with: its settings, the router, the output."""

from dataclasses import dataclass
from typing import TypeVar

import click
from google.protobuf.message import Message

from cli.client import Router, Target, grpcurl_command
from cli.render.output import Output

Answer = TypeVar("Answer", bound=Message)


@dataclass(frozen=True, slots=True)
class Settings:
    """The global options of one run; `wait` is in seconds."""

    target: Target
    output: Output
    grpcurl: bool
    wait: float


class Session:
    """One run. The connection is made by the first call."""

    def __init__(self, settings: Settings) -> None:
        self.out = settings.output
        self.wait = settings.wait
        self._settings = settings
        self._router: Router | None = None

    @property
    def router(self) -> Router:
        """The router, for what `call` does not cover."""
        if self._router is None:
            self._router = Router(self._settings.target)
        return self._router

    def call(self, request: Message, answer: type[Answer]) -> Answer:
        """Sends a request and returns its answer; with `--grpcurl` prints it and ends the run."""
        self.explain(request)
        return self.router.call(request, answer)

    def explain(self, *requests: Message, fed_by: str = "") -> None:
        """With `--grpcurl` prints the commands of these requests and ends the run.

        `fed_by` is a command that writes, as JSON, the messages of a stream of such requests.
        """
        if not self._settings.grpcurl:
            return
        target = self._settings.target
        for request in requests:
            command = grpcurl_command(
                request,
                target.address,
                with_token=bool(target.token),
                from_stdin=bool(fed_by),
            )
            click.echo(f"{fed_by} | {command}" if fed_by else command)
        raise click.exceptions.Exit(0)

    def close(self) -> None:
        """Ends the connection, if there is one."""
        if self._router is not None:
            self._router.close()
