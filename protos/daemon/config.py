"""Settings in layers: a flag beats the environment, then `--config FILE`, then the default."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")


def daemon_options(env_prefix: str) -> Callable[[Command], Command]:
    """Adds the options that all daemons share to a click command.

    `--config`, `--ready-file`, `--log-format` and `--log-level`, each also read from the
    environment (`<env_prefix>_LOG_LEVEL` and so on). The command receives `ready_file`
    (`Path | None`), `log_format` and `log_level`; the file of `--config` is a layer below the
    environment for *every* option and argument of the command. Its keys are the options' long
    names, with `-` or `_`; an unknown key is a usage error that names it. A list, or a table of
    KEY = VALUE, is for an option that may be repeated.
    """

    def decorate(command: Command) -> Command:
        for option in reversed(
            [
                click.option(
                    "--config",
                    type=click.Path(exists=True, dir_okay=False, path_type=Path),
                    envvar=f"{env_prefix}_CONFIG",
                    show_envvar=True,
                    is_eager=True,
                    expose_value=False,
                    callback=_use_config_file,
                    help="TOML file with settings; flags and the environment beat it.",
                ),
                click.option(
                    "--ready-file",
                    type=click.Path(dir_okay=False, path_type=Path),
                    envvar=f"{env_prefix}_READY_FILE",
                    show_envvar=True,
                    help="Written once this process serves: JSON with pid, version, addresses.",
                ),
                click.option(
                    "--log-format",
                    type=click.Choice(LOG_FORMATS),
                    default="text",
                    envvar=f"{env_prefix}_LOG_FORMAT",
                    show_envvar=True,
                    show_default=True,
                    help="How log lines look on stderr.",
                ),
                click.option(
                    "--log-level",
                    type=click.Choice(LOG_LEVELS, case_sensitive=False),
                    default="info",
                    envvar=f"{env_prefix}_LOG_LEVEL",
                    show_envvar=True,
                    show_default=True,
                    help="The least severe level that is logged.",
                ),
            ]
        ):
            command = option(command)
        return command

    return decorate


def _use_config_file(
    context: click.Context, parameter: click.Parameter, path: Path | None
) -> Path | None:
    if path is not None:
        settings = _read(path)
        context.default_map = {**(context.default_map or {}), **_by_parameter(context, settings)}
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise click.UsageError(f"the configuration file {path} cannot be read: {error}") from error


def _by_parameter(context: click.Context, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings under click's parameter names, as text, the way the environment gives them."""
    parameters = {
        spelling: parameter
        for parameter in context.command.params
        for spelling in _spellings(parameter)
    }
    unknown = sorted(key for key in settings if _plain(key) not in parameters)
    if unknown:
        known = sorted(parameters)
        raise click.UsageError(
            f"unknown setting in the configuration file: {', '.join(unknown)} "
            f"(known: {', '.join(known)})"
        )
    values: dict[str, Any] = {}
    for key, value in settings.items():
        parameter = parameters[_plain(key)]
        values[str(parameter.name)] = _value(key, value, repeatable=_is_repeatable(parameter))
    return values


def _spellings(parameter: click.Parameter) -> list[str]:
    if isinstance(parameter, click.Argument):
        return [_plain(str(parameter.name))]
    if not isinstance(parameter, click.Option) or parameter.is_eager:
        return []  # --help, --version, --config itself
    return [_plain(spelling[2:]) for spelling in parameter.opts if spelling.startswith("--")]


def _plain(key: str) -> str:
    return key.replace("_", "-")


def _is_repeatable(parameter: click.Parameter) -> bool:
    return parameter.multiple or parameter.nargs != 1


def _value(key: str, value: Any, *, repeatable: bool) -> str | list[str]:
    if repeatable and isinstance(value, dict):
        return [f"{name}={_text(key, item)}" for name, item in value.items()]
    if repeatable:
        return [_text(key, item) for item in (value if isinstance(value, list) else [value])]
    return _text(key, value)


def _text(key: str, value: Any) -> str:
    # Text, so that click judges `1.5` or `true` given for a whole number as it judges a flag.
    if isinstance(value, (dict, list)):
        raise click.UsageError(f"the setting {key} in the configuration file takes one plain value")
    return str(value).lower() if isinstance(value, bool) else str(value)
