"""`python -m cli` is `llm-router`."""

from cli.main import main

main(prog_name="llm-router")
