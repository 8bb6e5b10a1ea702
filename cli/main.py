"""`llm-router`: the operator's command line. It speaks only gRPC."""

import click

from cli.commands.bundle import model
from cli.commands.node import node
from cli.commands.order import order
from cli.commands.site import site
from cli.commands.status import status
from cli.commands.task import task
from cli.options import Program

_EPILOG = """\b
Exit codes: 0 done; 1 failed (also: a followed task failed or was cancelled); 2 usage;
3 not found; 4 conflict (already registered, wrong state); 5 router or Hub unreachable;
6 not permitted; 130 detached by Ctrl-C, which cancels nothing.

\b
Completion of commands and options, for bash (also zsh, fish):
  eval "$(_LLM_ROUTER_COMPLETE=bash_source llm-router)"
"""


@click.group(cls=Program, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="llm-router", prog_name="llm-router")
def main() -> None:
    """Gets GGUF models from the Hugging Face Hub onto your machines.

    \b
    Find one, register it, order it onto every node, and watch it arrive:
      llm-router model list --search qwen
      llm-router model add OWNER/REPO:Q4_K_M
      llm-router model download OWNER/REPO:Q4_K_M --all
      llm-router status
    """


for command in (model, task, order, node, site, status):
    main.add_command(command)
