"""Who may import whom, read from the source of every file."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = "protos.names"
UNITS = "protos.units"
PIECES = "protos.pieces"
TICKETS = "protos.tickets"
MESSAGES = "protos.llmrouter"
DAEMON = "protos.daemon"

# Each room with the rooms whose code it may use; what is not named here is forbidden. A room is a
# package or a single module; the longest name that fits decides.
ALLOWED: dict[str, set[str]] = {
    "protos.names": set(),
    "protos.units": set(),
    "protos.pieces": set(),
    "protos.tickets": set(),
    "protos.llmrouter": set(),
    "protos.daemon": set(),
    "protos": set(),
    "router": set(),
    "router.domain": {NAMES},
    "router.storage": {NAMES, "router.domain"},
    "router.peer_reader": set(),
    "router.hub": {NAMES, DAEMON, "router.domain"},
    "router.http_server": set(),
    "router.protocol": set(),
    "router.hosting": {
        NAMES,
        DAEMON,
        "router.domain",
        "router.http_server",
        "router.hub",
        "router.protocol",
    },
    "router.services": {NAMES, UNITS, PIECES, TICKETS, "router.domain"},
    "router.metrics": {DAEMON},
    "router.config": set(),
    "router.rpc": {MESSAGES, DAEMON, "router.domain", "router.services", "router.metrics"},
    "router.rest": {UNITS, DAEMON, "router.domain", "router.protocol", "router.services"},
    "router.app": {
        DAEMON,
        "router.config",
        "router.domain",
        "router.http_server",
        "router.hub",
        "router.metrics",
        "router.peer_reader",
        "router.rest",
        "router.rpc",
        "router.services",
        "router.storage",
    },
    "router.__main__": {DAEMON, "router.app", "router.config", "router.rpc", "router.storage"},
    "agent": {NAMES, PIECES, TICKETS, MESSAGES, DAEMON},
    "cli": {NAMES, UNITS, MESSAGES, DAEMON},
}
# Libraries that one room of the router alone knows.
ALONE = {
    "peewee": "router.storage",
    "playhouse": "router.storage",
    "huggingface_hub": "router.hub",
    "fastapi": "router.rest",
}
ASSEMBLY = {"router.app", "router.__main__"}
PRODUCT = ("protos", "router", "agent", "cli")


def modules() -> list[Path]:
    """Every file of the product that a person wrote."""
    return [
        path
        for room in PRODUCT
        for path in sorted((ROOT / room).rglob("*.py"))
        if "_pb2" not in path.name
    ]


def room_of(module: str) -> str | None:
    """The room that a module belongs to; None: it is not ours."""
    fitting = [room for room in ALLOWED if module == room or module.startswith(f"{room}.")]
    return max(fitting, key=len, default=None)


def name_of(path: Path) -> str:
    """The module's name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for statement in ast.walk(ast.parse(path.read_text())):
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, f"{path}: a relative import"
            assert statement.module is not None
            for alias in statement.names:
                whole = f"{statement.module}.{alias.name}"
                known = (ROOT / whole.replace(".", "/")).exists() or room_of(whole) != room_of(
                    statement.module
                )
                yield whole if known else statement.module


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_uses_only_the_rooms_that_its_own_may_use(path: Path) -> None:
    own = room_of(name_of(path))
    assert own is not None

    for module in imported(path):
        used = room_of(module)
        if used is None:
            library = module.partition(".")[0]
            alone = ALONE.get(library, own)
            if own.startswith("router"):
                assert own == alone or own in ASSEMBLY, f"{library} belongs to {alone}"
        elif used != own:
            assert used in ALLOWED[own], f"{own} may not use {used} ({module})"


def test_the_domain_knows_nothing_but_the_standard_library() -> None:
    for path in sorted((ROOT / "router/domain").glob("*.py")):
        for module in imported(path):
            top = module.partition(".")[0]
            assert top in sys.stdlib_module_names or module.startswith(("router.domain", NAMES))


def test_the_rule_sees_a_forbidden_import(tmp_path: Path) -> None:
    source = tmp_path / "bad.py"
    source.write_text("def f():\n    from router import storage\n    import agent.runner\n")

    found = {room_of(module) for module in imported(source)}

    assert found == {"router.storage", "agent"}
    assert not found & ALLOWED["router.services"]
