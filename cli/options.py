"""Options: the global ones, accepted before and after the subcommand, and the shared ones."""

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import click
from click.core import ParameterSource

from cli.client import DEFAULT_ADDRESS, Target, parse_address
from cli.failures import Failure
from cli.render.output import Output
from cli.session import Session, Settings
from protos import names

_KEY = "llm-router"
_P = ParamSpec("_P")
_R = TypeVar("_R")


class Address(click.ParamType):  # type: ignore[type-arg]
    """HOST:PORT."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Checks it."""
        try:
            return parse_address(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Keeps a global option for the whole run; what was typed last beats everything else."""
    given: dict[str, Any] = ctx.meta.setdefault(_KEY, {})
    name = param.name or ""
    if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE or name not in given:
        given[name] = value


def _global_options() -> list[click.Option]:
    return [
        click.Option(
            ["--router"],
            type=Address(),
            metavar="HOST:PORT",
            default=DEFAULT_ADDRESS,
            envvar="LLM_ROUTER_ADDRESS",
            help=f"The router's gRPC address (LLM_ROUTER_ADDRESS; {DEFAULT_ADDRESS}).",
            expose_value=False,
            callback=_remember,
        ),
        click.Option(
            ["--token"],
            metavar="TOKEN",
            default="",
            envvar="LLM_ROUTER_TOKEN",
            help="What this operator shows the router (LLM_ROUTER_TOKEN).",
            expose_value=False,
            callback=_remember,
        ),
        click.Option(
            ["--format"],
            type=click.Choice(["table", "json"]),
            default="table",
            help="JSON has the names of the REST API and is alone on stdout.",
            expose_value=False,
            callback=_remember,
        ),
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            help="Ids only, one a line; no progress.",
            expose_value=False,
            callback=_remember,
        ),
        click.Option(
            ["--grpcurl"],
            is_flag=True,
            help="Print the equivalent grpcurl command instead of running it.",
            expose_value=False,
            callback=_remember,
        ),
        click.Option(
            ["--wait"],
            type=click.FloatRange(min=0),
            metavar="SECONDS",
            default=60.0,
            help="How long to look for a router that went away while following tasks (60).",
            expose_value=False,
            callback=_remember,
        ),
    ]


class _WithGlobalOptions(click.Command):
    """Takes the global options too, and lists them apart in its help."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._globals = _global_options()
        self.params.extend(self._globals)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Own options first, then the global ones."""
        records: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                records[param in self._globals].append(record)
        for title, rows in (("Options", records[False]), ("Everywhere", records[True])):
            with formatter.section(title):
                formatter.write_dl(rows)


class Command(_WithGlobalOptions):
    """A command."""


class Group(_WithGlobalOptions, click.Group):
    """A noun with its verbs."""

    command_class = Command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options, then commands."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


class Program(Group):
    """The whole program: turns failures into a message and an exit code."""

    group_class = Group

    def invoke(self, ctx: click.Context) -> Any:
        """Runs; Ctrl-C ends it as shells expect, with 130."""
        try:
            return super().invoke(ctx)
        except Failure as failure:
            failure.show()
            raise click.exceptions.Exit(failure.exit_code) from failure
        except KeyboardInterrupt:
            raise click.exceptions.Exit(130) from None


def with_session(command: Callable[Concatenate[Session, _P], _R]) -> Callable[_P, _R]:
    """Gives a command its session, built from the global options, as its first argument."""

    @click.pass_context
    def run(ctx: click.Context, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        given = ctx.meta[_KEY]
        session = Session(
            Settings(
                target=Target(address=given["router"], token=given["token"]),
                output=Output(form=given["format"], quiet=given["quiet"]),
                grpcurl=given["grpcurl"],
                wait=given["wait"],
            )
        )
        ctx.call_on_close(session.close)
        return command(session, *args, **kwargs)

    run.__doc__ = command.__doc__
    run.__name__ = command.__name__
    return run


def label(text: str) -> tuple[str, str]:
    """KEY=VALUE, checked."""
    key, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f'"{text}" is not a label: write KEY=VALUE')
    try:
        return names.label(key, value)
    except names.InvalidName as error:
        raise click.UsageError(str(error)) from error
