"""`sluice batches`: look at batches, watch them, stop them, run what failed again; `sluice submit` makes them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.cli.calls import Tenant, Url, listed, path_of, with_client
from shared.cli.output import AsJson, as_json, cost, facts, moment, table
from shared.cli.submit import INTERRUPTED, SOME_FAILED

if TYPE_CHECKING:
    from shared.cli.client import Client

app = typer.Typer(help="Look at batches, watch them, cancel them, run what failed again.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="batch_…")]


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="batches")


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 20,
    tenant: Tenant = None,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """List batches, newest first."""
    page = listed("/v1/batches", {}, limit=limit, url=url, tenant=tenant)
    if json:
        as_json(page)
        return
    columns = ("id", "status", "completed", "failed", "total", "cost", "created (UTC)")
    table(columns, [_row(batch) for batch in page["data"]])


def _row(batch: dict[str, Any]) -> tuple[str, ...]:
    counts = batch["request_counts"]
    return (
        batch["id"],
        batch["status"],
        f"{counts['completed']:,}",
        f"{counts['failed']:,}",
        f"{counts['total']:,}",
        cost(batch["cost_usd"]),
        moment(batch["created_at"]),
    )


@app.command()
def show(id_: Id, tenant: Tenant = None, json: AsJson = False, url: Url = None) -> None:
    """Show a batch: its counts, tokens and cost."""

    async def act(client: "Client") -> dict[str, Any]:
        return await client.get(path_of("/v1/batches", id_))

    _show(with_client(url, act, tenant=tenant), json=json)


@app.command()
def cancel(id_: Id, tenant: Tenant = None, json: AsJson = False, url: Url = None) -> None:
    """Stop a batch: what waits is cancelled, what runs is stopped, what ended stays."""

    async def act(client: "Client") -> dict[str, Any]:
        return await client.post(path_of("/v1/batches", id_, "cancel"), repeatable=True)

    _show(with_client(url, act, tenant=tenant), json=json)


@app.command()
def retry(id_: Id, tenant: Tenant = None, json: AsJson = False, url: Url = None) -> None:
    """Run a batch's jobs that failed or expired again."""

    async def act(client: "Client") -> dict[str, Any]:
        return await client.post(path_of("/v1/batches", id_, "retry"))

    _show(with_client(url, act, tenant=tenant), json=json)


@app.command()
def watch(id_: Id, tenant: Tenant = None, json: AsJson = False, url: Url = None) -> None:
    """Show a batch's progress until it has ended; the exit code is 2 where not every job was completed."""
    import asyncio

    from shared.cli.client import ENDED, LONGEST_POLL, SHORTEST_POLL
    from shared.cli.progress import Progress, Tally

    async def act(client: "Client") -> dict[str, Any]:
        pause = SHORTEST_POLL
        with Progress("Running", total=0) as progress:
            while True:
                batch = await client.get(path_of("/v1/batches", id_))
                progress.total = batch["request_counts"]["total"]
                progress.show(Tally.of([batch]))
                if batch["status"] in ENDED:
                    return batch
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, LONGEST_POLL)

    try:
        batch = with_client(url, act, tenant=tenant)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    _show(batch, json=json)
    if batch["request_counts"]["completed"] < batch["request_counts"]["total"]:
        raise typer.Exit(SOME_FAILED)


def _show(batch: dict[str, Any], *, json: bool) -> None:
    if json:
        as_json(batch)
        return
    counts, usage = batch["request_counts"], batch["usage"]
    facts(
        {
            "id": batch["id"],
            "status": batch["status"],
            "endpoint": batch["endpoint"],
            "created": moment(batch["created_at"]),
            "completed at": moment(batch["completed_at"]),
            "requests": ", ".join(f"{count:,} {name}" for name, count in counts.items()),
            "tokens": f"{usage['input_tokens']:,} in, {usage['output_tokens']:,} out",
            "cost": cost(batch["cost_usd"]),
            "metadata": batch["metadata"] or None,
        }
    )
