"""What an operator may write on the command line, through the command itself."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from agent.__main__ import main
from agent.config import ByteSize, Config, host_name
from protos import names


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The settings with which an agent would have been run."""
    seen: list[Config] = []

    async def run(config: Config) -> None:
        seen.append(config)

    monkeypatch.setattr("agent.app.run", run)
    monkeypatch.setattr("protos.daemon.logs.configure", lambda *given: None)
    for name in ("HF_HUB_CACHE", "HF_HOME", "HF_TOKEN", "HF_ENDPOINT", "LLM_ROUTER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return seen


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, list(arguments), env=environment)


def test_without_settings_the_documented_defaults_hold(configured: list[Config]) -> None:
    result = run()

    assert result.exit_code == 0, result.output
    (config,) = configured
    assert config.router == "127.0.0.1:50051"
    assert config.data_dir == Path.home() / ".llm-router-agent"
    assert config.models_dir.parts[-2:] == ("huggingface", "hub")
    assert (config.max_concurrent, config.max_rate, config.reserve_bytes) == (2, None, 0)
    assert config.stall_seconds == 30
    assert config.hf_token is None


def test_sizes_labels_and_folders_are_read(configured: list[Config], tmp_path: Path) -> None:
    result = run(
        *("--max-rate", "20MB/s", "--reserve", "1.5GiB", "--models-dir", str(tmp_path)),
        *("--label", "site=north", "--label", "gpu=a100", "--name", "n1"),
    )

    assert result.exit_code == 0, result.output
    (config,) = configured
    assert config.max_rate == 20_000_000
    assert config.reserve_bytes == 3 << 29
    assert config.models_dir == tmp_path
    assert config.labels == {"site": "north", "gpu": "a100"}
    assert config.name == "n1"


def test_the_environment_is_read(configured: list[Config], tmp_path: Path) -> None:
    result = run(
        LLM_ROUTER_ADDRESS="localhost:7", HF_HUB_CACHE=str(tmp_path), HF_TOKEN="hf_secret123"
    )

    assert result.exit_code == 0, result.output
    (config,) = configured
    assert (config.router, config.models_dir) == ("localhost:7", tmp_path)
    assert config.hf_token == "hf_secret123"
    assert "hf_secret123" not in repr(config)


def test_a_router_on_another_machine_has_to_be_asked_for(configured: list[Config]) -> None:
    refused = run("--router", "router.example:50051")
    accepted = run("--router", "router.example:50051", "--insecure")

    assert refused.exit_code == 2
    assert "--insecure" in refused.output
    assert accepted.exit_code == 0
    assert [config.router for config in configured] == ["router.example:50051"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--router", "nowhere"],
        ["--name", "a b"],
        ["--label", "no-equals"],
        ["--label", "bad key=1"],
        ["--max-rate", "fast"],
        ["--max-concurrent", "0"],
        ["--stall", "0"],
    ],
)
def test_a_wrong_setting_is_a_usage_error(arguments: list[str], configured: list[Config]) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert configured == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0), ("500000", 500_000), ("20MB", 20_000_000), ("20mb", 20_000_000),
        ("1k", 1_000), ("1KiB", 1_024), ("1.5 GiB", 3 << 29), ("2TB/s", 2 * 10**12),
    ],
)  # fmt: skip
def test_a_size_as_people_write_it(text: str, count: int) -> None:
    assert ByteSize().convert(text, None, None) == count


@given(st.text(max_size=12))
def test_any_other_text_is_no_size(text: str) -> None:
    try:
        assert ByteSize().convert(text, None, None) >= 0
    except click.UsageError as error:
        assert "size" in str(error) or "large" in str(error)


@pytest.mark.parametrize("name", ["node1", "a.b.c", "Ünïcode host", "-_.", "", "x" * 300])
def test_the_hosts_name_becomes_a_node_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: name)

    assert names.node_name(host_name())
