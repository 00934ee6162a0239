"""`sluice jobs`: look at jobs, stop them, run them again."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.cli.calls import Tenant, Url, listed, path_of, with_client
from shared.cli.output import AsJson, as_json, cost, facts, moment, table

if TYPE_CHECKING:
    from shared.cli.client import Client

app = typer.Typer(help="Look at jobs, cancel them, run them again.", no_args_is_help=True)

Ids = Annotated[list[str], typer.Argument(help="job_…")]


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="jobs")


@app.command("list")
def list_(
    status: Annotated[
        str | None, typer.Option(help="queued, in_progress, completed, failed, cancelled, expired")
    ] = None,
    batch: Annotated[str | None, typer.Option(help="batch_…")] = None,
    model: Annotated[str | None, typer.Option(help="the model asked for")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 20,
    tenant: Tenant = None,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """List jobs, newest first."""
    query: dict[str, str | int | None] = {"status": status, "batch_id": batch, "model": model}
    page = listed("/v1/jobs", query, limit=limit, url=url, tenant=tenant)
    if json:
        as_json(page)
        return
    columns = ("id", "status", "model", "provider", "tries", "cost", "created (UTC)", "custom_id")
    table(columns, [_row(job) for job in page["data"]])


def _row(job: dict[str, Any]) -> tuple[str, ...]:
    return (
        job["id"],
        job["status"],
        job["model"],
        job["provider"] or "-",
        str(job["attempts"]),
        cost(job["cost_usd"]),
        moment(job["created_at"]),
        job["custom_id"] or "-",
    )


@app.command()
def show(
    id_: Annotated[str, typer.Argument(metavar="ID", help="job_…")],
    result: Annotated[bool, typer.Option("--result", help="also print the provider's answer")] = False,
    tenant: Tenant = None,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """Show a job and its attempts."""

    async def act(client: "Client") -> tuple[dict[str, Any], dict[str, Any]]:
        return await client.get(path_of("/v1/jobs", id_)), await client.get(path_of("/v1/jobs", id_, "attempts"))

    job, attempts = with_client(url, act, tenant=tenant)
    if json:
        as_json({**job, "attempts_made": attempts["data"]})
        return
    error = job["error"]
    usage = job["usage"]
    facts(
        {
            "id": job["id"],
            "custom_id": job["custom_id"],
            "status": job["status"],
            "held": job["held_by"] and f"held by {job['held_by']} until {moment(job['run_at'])} (UTC)",
            "model": job["model"],
            "target": job["provider"] and f"{job['provider']} ({job['deployment'] or 'no call yet'})",
            "priority": job["priority"],
            "batch": job["batch_id"],
            "created": moment(job["created_at"]),
            "started": moment(job["started_at"]),
            "finished": moment(job["finished_at"]),
            "tokens": f"{usage['prompt_tokens']:,} in, {usage['completion_tokens']:,} out" if usage else None,
            "cost": cost(job["cost_usd"]),
            "error": error and f"{error['code']}: {error['message']}",
        }
    )
    if attempts["data"]:
        typer.echo()
        columns = ("attempt", "deployment", "key", "status", "started (UTC)", "cost", "error")
        table(columns, [_attempt(attempt) for attempt in attempts["data"]])
    if result:
        typer.echo()
        as_json(job["result"])


def _attempt(attempt: dict[str, Any]) -> tuple[str, ...]:
    error = attempt["error"]
    return (
        str(attempt["number"]),
        attempt["deployment"] or attempt["provider"] or "-",
        attempt["key"] or "-",
        attempt["status"],
        moment(attempt["started_at"]),
        cost(attempt["cost_usd"]),
        f"{error.get('code') or error.get('kind')}: {error.get('message')}" if error else "",
    )


@app.command()
def cancel(ids: Ids, tenant: Tenant = None, json: AsJson = False, url: Url = None) -> None:
    """Stop jobs wherever they are."""
    _act_on(ids, "cancel", json=json, url=url, tenant=tenant)


@app.command()
def retry(
    ids: Annotated[list[str] | None, typer.Argument(help="job_…")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="every failed job")] = False,
    batch: Annotated[str | None, typer.Option(help="with --failed: of this batch only")] = None,
    tenant: Tenant = None,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """Run failed or expired jobs again."""
    if bool(ids) == failed or (batch and not failed):
        raise typer.BadParameter("give job ids, or --failed with or without --batch")
    if ids:
        _act_on(ids, "retry", json=json, url=url, tenant=tenant)
        return

    async def act(client: "Client") -> dict[str, Any]:
        return await client.post("/v1/jobs/retry", {"status": "failed", **({"batch_id": batch} if batch else {})})

    answer = with_client(url, act, tenant=tenant)
    if json:
        as_json(answer)
    else:
        more = "; there are more, run it again" if answer["has_more"] else ""
        typer.echo(f"{answer['retried']:,} jobs run again{more}")


def _act_on(ids: list[str], verb: str, *, json: bool, url: str | None, tenant: str | None) -> None:
    async def act(client: "Client") -> list[dict[str, Any]]:
        return [await client.post(path_of("/v1/jobs", id_, verb), repeatable=verb == "cancel") for id_ in ids]

    acted = with_client(url, act, tenant=tenant)
    if json:
        as_json({"object": "list", "data": acted})
    else:
        table(("id", "status", "custom_id"), [(job["id"], job["status"], job["custom_id"] or "-") for job in acted])
