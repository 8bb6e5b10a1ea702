"""A fake router, and the CLI called against it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.main import main
from tests.cli.fake_router import FakeRouter


@dataclass(frozen=True)
class Cli:
    """Calls the command in this process."""

    router: str

    def __call__(self, *arguments: str, **environment: str) -> Result:
        """Runs `llm-router ARGUMENTS…` against the fake router."""
        variables = {"LLM_ROUTER_ADDRESS": self.router, "LLM_ROUTER_TOKEN": None, **environment}
        return CliRunner().invoke(main, list(arguments), env=variables)

    def json(self, *arguments: str) -> Any:
        """Runs it with `--format json`; the whole stdout is one document."""
        return json.loads(self(*arguments, "--format", "json").stdout)


@pytest.fixture
def router() -> Iterator[FakeRouter]:
    """A router without scripts yet."""
    with FakeRouter() as fake:
        yield fake


@pytest.fixture
def cli(router: FakeRouter) -> Cli:
    """The command, aimed at the fake router."""
    return Cli(router.address)
