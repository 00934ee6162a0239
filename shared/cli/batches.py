"""`sluice batches`: look at batches, watch them, stop them, run what failed again; make one of an uploaded file.

Of lines on this machine `sluice submit` makes them.
"""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.cli.calls import Tenant, Url, listed, path_of, with_client
from shared.cli.output import AsJson, as_json, clean, cost, facts, moment, note, table
from shared.cli.submit import INTERRUPTED, SOME_FAILED

if TYPE_CHECKING:
    from shared.cli.client import Client

MOST_ERRORS = 20

app = typer.Typer(help="Create, look at, watch and cancel batches, run what failed again.", no_args_is_help=True)

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
def create(
    file: Annotated[
        str, typer.Argument(metavar="FILE_ID", help="file_…, of OpenAI batch lines: `sluice files upload`")
    ],
    endpoint: Annotated[
        str | None, typer.Option(help="the lines' route (default: each line's `url`, else /v1/chat/completions)")
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="when what has not ended expires: 30m, 24h (default: never)")
    ] = None,
    tenant: Tenant = None,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """Make a batch of a file that was uploaded; `sluice batches watch` shows its progress."""
    asked = {"input_file_id": file, "endpoint": endpoint, "completion_window": window}

    async def act(client: "Client") -> dict[str, Any]:
        return await client.post("/v1/batches", {name: value for name, value in asked.items() if value is not None})

    _show(with_client(url, act, tenant=tenant), json=json)


@app.command()
def results(
    id_: Id,
    out: Annotated[Path | None, typer.Option(help="where to, as CSV if it ends in .csv (default: printed)")] = None,
    tenant: Tenant = None,
    url: Url = None,
) -> None:
    """Write the results that there are by now as JSON lines, in the order the jobs ended."""
    from shared.cli.results import append, is_csv, write_lines

    async def act(client: "Client") -> int:
        count, lines = 0, await client.results(id_)  # before the file is opened: a refusal leaves it as it was
        with nullcontext(sys.stdout.buffer) if out is None else out.open("wb") as file:
            while lines:
                count += len(lines)
                if out is None:
                    write_lines(file, lines)
                else:
                    append(file, lines, as_csv=is_csv(out))
                lines = await client.results(id_, after=lines[-1]["cursor"])
        return count

    count = with_client(url, act, tenant=tenant)
    if out is not None:
        note(f"{count:,} results to {out}")


@app.command()
def show(id_: Id, tenant: Tenant = None, json: AsJson = False, url: Url = None) -> None:
    """Show a batch: its counts, tokens, cost and files, and what was wrong with its lines."""

    async def act(client: "Client") -> dict[str, Any]:
        return await client.get(path_of("/v1/batches", id_))

    _show(with_client(url, act, tenant=tenant), json=json)


@app.command()
def cancel(id_: Id, tenant: Tenant = None, json: AsJson = False, url: Url = None) -> None:
    """Stop a batch: what waits is cancelled, what runs is stopped, what ended stays."""

    async def act(client: "Client") -> dict[str, Any]:
        return await client.post(path_of("/v1/batches", id_, "cancel"), repeatable=True)

    _show(_with_jobs(with_client(url, act, tenant=tenant)), json=json)


@app.command()
def retry(id_: Id, tenant: Tenant = None, json: AsJson = False, url: Url = None) -> None:
    """Run a batch's jobs that failed or expired again."""

    async def act(client: "Client") -> dict[str, Any]:
        return await client.post(path_of("/v1/batches", id_, "retry"))

    _show(_with_jobs(with_client(url, act, tenant=tenant)), json=json)


def _with_jobs(batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch whose jobs were to be acted on. Raises CliError where it failed its validation, and has none."""
    from shared.cli.client import CliError

    if batch["status"] == "failed":
        raise CliError(
            f"there is nothing to do: {batch['id']} failed its validation and has no jobs; "
            "`sluice batches show` says why"
        )
    return batch


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
    if batch["status"] != "completed" or batch["request_counts"]["completed"] < batch["request_counts"]["total"]:
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
            "input file": batch["input_file_id"],
            "output file": batch["output_file_id"],
            "error file": batch["error_file_id"],
            "metadata": batch["metadata"] or None,
        }
    )
    errors = batch["errors"]["data"] if batch["errors"] else []
    for error in errors[:MOST_ERRORS]:
        where = "" if error["line"] is None else f"line {error['line']}: "
        what = f"{error['param']}: " if error["param"] else ""
        typer.echo(clean(f"{where}{what}{error['message']}"))
    if len(errors) > MOST_ERRORS:
        typer.echo(f"… and {len(errors) - MOST_ERRORS:,} more")
