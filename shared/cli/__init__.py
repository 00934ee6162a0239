"""The `sluice` command: each module adds its own commands.

Imports here are paid by every `sluice --help`, so a module imports what is heavy inside its commands.
"""

import sys

import typer

from shared.cli import (
    alerts,
    batches,
    budgets,
    config,
    doctor,
    jobs,
    keys,
    ledger,
    limits,
    parts,
    submit,
    tenants,
    usage,
)
from shared.errors import SluiceError

app = typer.Typer(
    help="A queue-based asynchronous gateway for LLM jobs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for module in (parts, submit, jobs, batches, keys, tenants, budgets, usage, ledger, limits, alerts, doctor, config):
    module.register(app)


def main() -> None:
    """Run the command line; what goes wrong on purpose is one line on standard error and exit code 1."""
    try:
        app()
    except SluiceError as error:
        typer.echo(f"sluice: {error}", err=True)
        sys.exit(1)
