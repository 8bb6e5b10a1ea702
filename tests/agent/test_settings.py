"""What an operator may write on the command line, through the command itself."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.__main__ import main
from agent.config import Config, Engines, Serving, host_name
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


@pytest.mark.parametrize("name", ["node1", "a.b.c", "Ünïcode host", "-_.", "", "x" * 300])
def test_the_hosts_name_becomes_a_node_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: name)

    assert names.node_name(host_name())


def test_by_default_files_are_read_again_each_week_and_no_engine_is_served(
    configured: list[Config],
) -> None:
    run()

    (config,) = configured
    assert (config.scrub_interval, config.scrub_rate) == (7 * 86400, 50_000_000)
    assert config.max_store_bytes is None
    engines = config.engines
    assert (engines.view_llama_server, engines.view_lmstudio, engines.view_ollama) == (None,) * 3
    assert (engines.after_commit, engines.llama_server_url) == (None, None)
    assert engines.ollama_url == "http://127.0.0.1:11434"


def test_engines_quota_and_scrubbing_are_read(configured: list[Config], tmp_path: Path) -> None:
    result = run(
        *("--max-store", "500GB", "--scrub-interval", "36h", "--scrub-rate", "0"),
        *("--view-llama-server", str(tmp_path / "a"), "--view-lmstudio", str(tmp_path / "b")),
        *("--view-ollama", str(tmp_path / "c"), "--ollama-url", "http://ollama:1/"),
        *("--llama-server-url", "http://llama:2", "--after-commit", "notify 'a b'"),
        LLM_ROUTER_AGENT_AFTER_COMMIT_TIMEOUT="5",
    )

    assert result.exit_code == 0, result.output
    (config,) = configured
    assert config.max_store_bytes == 500 * 10**9
    assert (config.scrub_interval, config.scrub_rate) == (36 * 3600, None)
    assert config.engines == Engines(
        view_llama_server=tmp_path / "a",
        view_lmstudio=tmp_path / "b",
        view_ollama=tmp_path / "c",
        ollama_url="http://ollama:1",
        llama_server_url="http://llama:2",
        after_commit="notify 'a b'",
        after_commit_seconds=5,
    )


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("12", 43200), ("90s", 90), ("30m", 1800), ("1.5d", 129600)]
)
def test_a_span_of_time_is_hours_unless_it_says_otherwise(
    configured: list[Config], text: str, seconds: float
) -> None:
    run("--scrub-interval", text)

    assert configured[0].scrub_interval == seconds


@pytest.mark.parametrize(
    "arguments",
    [
        ("--scrub-interval", "often"),
        ("--after-commit", "'open"),
        ("--after-commit", ""),
        ("--ollama-url", "localhost:11434"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    configured: list[Config], arguments: tuple[str, str]
) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert arguments[0] in result.output
    assert configured == []


def test_by_default_pieces_are_served_on_loopback_without_a_limit(configured: list[Config]) -> None:
    run()

    assert configured[0].serving == Serving("127.0.0.1", 0, (), 64, None)


def test_serving_other_nodes_is_read(configured: list[Config], tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(
        'peer-address = ["node.example", "[2001:db8::1]:81"]\nmax-upload-rate = "9MB"\n'
    )

    result = run(
        *("--insecure", "--peer-host", "::", "--max-peer-connections", "9"),
        *("--config", str(file)),
        LLM_ROUTER_AGENT_PEER_PORT="7000",
    )

    assert result.exit_code == 0, result.output
    assert configured[0].serving == Serving(
        "::", 7000, ("node.example", "[2001:db8::1]:81"), 9, 9_000_000
    )


def test_serving_can_be_switched_off(configured: list[Config], tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("no-peers = true\n")

    run("--no-peers")
    run("--config", str(file))

    assert [config.serving for config in configured] == [None, None]


def test_serving_other_machines_has_to_be_asked_for(configured: list[Config]) -> None:
    refused = run("--peer-host", "0.0.0.0")
    accepted = run("--peer-host", "0.0.0.0", "--insecure")
    off = run("--peer-host", "0.0.0.0", "--no-peers")

    assert refused.exit_code == 2
    assert "--insecure" in refused.output
    assert (accepted.exit_code, off.exit_code) == (0, 0)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--peer-port", "65536"),
        ("--peer-address", "http://node"),
        ("--peer-address", "node:0"),
        ("--peer-address", "node:port"),
        ("--peer-address", "[node]:1"),
        ("--peer-address", "a b"),
        ("--max-peer-connections", "0"),
        ("--max-upload-rate", "much"),
    ],
)
def test_what_cannot_be_served_is_a_usage_error(
    configured: list[Config], arguments: tuple[str, str]
) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert arguments[0] in result.output
    assert configured == []
