"""Settings of a daemon, through a command as the daemons declare theirs."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from protos.daemon.config import daemon_options


@click.command()
@click.option("--http-port", type=int, default=1, envvar="SAMPLE_PORT")
@click.option("--label", multiple=True, envvar="SAMPLE_LABEL")
@click.option("--signed/--no-signed", default=False)
@click.argument("folder", required=False)
@daemon_options("SAMPLE")
def sample(**settings: object) -> None:
    """A daemon that only says what it was told."""
    for name, value in sorted(settings.items()):
        click.echo(f"{name}={value}")


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(sample, list(arguments), env=env)


def config_file(folder: Path, text: str) -> str:
    path = folder / "sample.toml"
    path.write_text(text)
    return f"--config={path}"


def test_without_any_setting_the_defaults_count() -> None:
    result = run()

    assert "http_port=1" in result.output
    assert "log_format=text" in result.output
    assert "log_level=info" in result.output
    assert "ready_file=None" in result.output


def test_the_config_file_beats_the_default(tmp_path: Path) -> None:
    result = run(config_file(tmp_path, 'http-port = 2\nlog-format = "json"'))

    assert "http_port=2" in result.output
    assert "log_format=json" in result.output


def test_the_environment_beats_the_config_file(tmp_path: Path) -> None:
    result = run(config_file(tmp_path, "http_port = 2"), env={"SAMPLE_PORT": "3"})

    assert "http_port=3" in result.output


def test_a_flag_beats_everything(tmp_path: Path) -> None:
    result = run(config_file(tmp_path, "http_port = 2"), "--http-port=4", env={"SAMPLE_PORT": "3"})

    assert "http_port=4" in result.output


def test_the_config_file_can_be_named_by_the_environment(tmp_path: Path) -> None:
    path = config_file(tmp_path, "http-port = 2").removeprefix("--config=")

    result = run(env={"SAMPLE_CONFIG": path})

    assert "http_port=2" in result.output


def test_shared_options_are_read_from_the_environment(tmp_path: Path) -> None:
    env = {"SAMPLE_LOG_LEVEL": "debug", "SAMPLE_READY_FILE": str(tmp_path / "ready")}

    result = run(env=env)

    assert "log_level=debug" in result.output
    assert f"ready_file={tmp_path / 'ready'}" in result.output


def test_lists_tables_switches_and_arguments_are_understood(tmp_path: Path) -> None:
    text = 'signed = true\nfolder = "/models"\n[label]\nsite = "north"\nrack = 4'

    result = run(config_file(tmp_path, text))

    assert "signed=True" in result.output
    assert "folder=/models" in result.output
    assert "label=('site=north', 'rack=4')" in result.output


def test_one_text_for_a_repeatable_option_is_one_value(tmp_path: Path) -> None:
    result = run(config_file(tmp_path, 'label = "site=north"'))

    assert "label=('site=north',)" in result.output


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("htttp-port = 2", "htttp-port"),
        ("config = 'other.toml'", "config"),
        ("help = true", "help"),
        ("http-port = 1.5", "1.5"),
        ("http-port = true", "true"),
        ("http-port = [1, 2]", "http-port"),
        ("signed = 'perhaps'", "perhaps"),
        ("log-format = 'xml'", "xml"),
        ("not toml", "sample.toml"),
    ],
)
def test_a_wrong_setting_is_a_usage_error_that_names_it(
    tmp_path: Path, text: str, named: str
) -> None:
    result = run(config_file(tmp_path, text))

    assert result.exit_code == 2
    assert named in result.output


def test_a_missing_config_file_is_a_usage_error(tmp_path: Path) -> None:
    result = run(f"--config={tmp_path / 'absent.toml'}")

    assert result.exit_code == 2
    assert "absent.toml" in result.output
