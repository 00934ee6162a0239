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
    files,
    jobs,
    keys,
    ledger,
    limits,
    parts,
    submit,
    tenants,
    usage,
    webhook_deliveries,
    webhooks,
)
from shared.cli.output import brief
from shared.errors import SluiceError

app = typer.Typer(
    help="A queue-based asynchronous gateway for LLM jobs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for module in (
    parts, submit, jobs, batches, files, keys, tenants, budgets, usage, ledger, limits, alerts, webhooks,
    webhook_deliveries, doctor, config,
):  # fmt: skip
    module.register(app)


def main() -> None:
    """Run the command line; what goes wrong on purpose is one line on standard error and exit code 1."""
    try:
        app()
    except SluiceError as error:
        typer.echo(f"sluice: {brief(str(error))}", err=True)
        sys.exit(1)
