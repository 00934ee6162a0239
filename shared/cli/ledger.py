"""`sluice ledger check`: proves that the ledger, the attempts, hourly usage and the budgets say the same."""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from shared.cli.doctor import of_running
from shared.cli.output import AsJson, as_json, table

ledger = typer.Typer(help="The append-only book of what was held, charged and freed.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the commands to the command line."""
    root.add_typer(ledger, name="ledger")


@ledger.command()
def check(
    days: Annotated[int, typer.Option(min=1, max=36_500, help="how far back to look")] = 2, json: AsJson = False
) -> None:
    """Compare the ledger with attempts, usage and budgets, over all tenants; exit 1 where something differs."""
    found = asyncio.run(_differences(datetime.now(UTC) - timedelta(days=days)))
    if json:
        as_json({"object": "list", "data": found})
    elif found:
        table(
            ("what", "tenant", "subject", "theirs", "ledger"), [[str(value) for value in one.values()] for one in found]
        )
    else:
        typer.echo(f"The ledger of the last {days} days agrees with attempts, usage and budgets.")
    if found:
        sys.exit(1)


async def _differences(since: datetime) -> list[dict[str, Any]]:
    from shared import settings
    from shared.db import engine, ledger

    url = settings.load(**of_running()).database_url
    if url is None:
        sys.exit("sluice ledger: no database is known: start `sluice up`, or set SLUICE_DATABASE_URL")
    database = engine.create(url, pool_size=1, name="sluice-ledger")
    try:
        async with engine.transaction(database) as connection:
            rows = await ledger.differences(connection, since=since)
    finally:
        await database.dispose()
    return [
        {"what": row.what, "tenant_id": row.tenant_id, "subject": row.subject, "theirs": row.theirs, "ledger": row.ours}
        for row in rows
    ]
