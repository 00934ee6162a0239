"""`sluice webhooks`: what became of deliveries, and having events delivered again."""

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.cli.calls import Tenant, Url, listed, path_of, with_client
from shared.cli.output import AsJson, as_json, facts, moment, table
from shared.cli.webhooks import PATH, Id, app

if TYPE_CHECKING:
    from shared.cli.client import Client

DELIVERIES = "/v1/webhook_deliveries"

DeliveryId = Annotated[str, typer.Argument(metavar="ID", help="delivery_…")]


def register(root: typer.Typer) -> None:
    """Add the commands."""
    app.command()(deliveries)
    app.command()(delivery)
    app.command()(redeliver)
    app.command()(replay)


def deliveries(
    endpoint: Annotated[str | None, typer.Argument(metavar="[ID]", help="webhook_…; default: all")] = None,
    status: Annotated[str | None, typer.Option(help="pending, delivered, exhausted (dead letters), disabled")] = None,
    event: Annotated[str | None, typer.Option(help="only this type, as job.failed")] = None,
    job: Annotated[str | None, typer.Option(help="only those about this job")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 20,
    tenant: Tenant = None,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """List deliveries, newest first."""
    path = DELIVERIES if endpoint is None else path_of(PATH, endpoint, "deliveries")
    query: dict[str, str | int | None] = {"status": status, "type": event, "job_id": job}
    page = listed(path, query, limit=limit, url=url, tenant=tenant)
    if json:
        as_json(page)
        return
    rows = [
        (one["id"], moment(one["event_at"]), one["type"], _to(one), one["status"], str(one["tries"]), _answer(one))
        for one in page["data"]
    ]
    table(("id", "event at (UTC)", "type", "to", "status", "tries", "answer"), rows)


def delivery(id_: DeliveryId, tenant: Tenant = None, json: AsJson = False, url: Url = None) -> None:
    """Show a delivery and its tries."""

    async def act(client: "Client") -> dict[str, Any]:
        return await client.get(path_of(DELIVERIES, id_))

    one = with_client(url, act, tenant=tenant)
    _show(one, json=json)
    if not json and one["attempts"]:
        rows = [
            (str(tried["number"]), moment(tried["at"]), _answer(tried), f"{tried['latency_ms']} ms", _excerpt(tried))
            for tried in one["attempts"]
        ]
        table(("try", "at (UTC)", "answer", "after", "which began"), rows)


def redeliver(id_: DeliveryId, tenant: Tenant = None, json: AsJson = False, url: Url = None) -> None:
    """Have the event of a delivery delivered again, with the same webhook-id."""

    async def act(client: "Client") -> dict[str, Any]:
        return await client.post(path_of(DELIVERIES, id_, "redeliver"))

    _show(with_client(url, act, tenant=tenant), json=json)


def replay(
    id_: Id,
    since: Annotated[str, typer.Option(help="from when: 10m, 24h or 7d ago, a day (UTC), or 2026-11-21T05:00:00Z")],
    until: Annotated[str | None, typer.Option(help="to before when, likewise (default: now)")] = None,
    event: Annotated[list[str] | None, typer.Option(help="only this type; repeat it")] = None,
    status: Annotated[str | None, typer.Option(help="only what was delivered, exhausted or disabled")] = None,
    tenant: Tenant = None,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """Have an endpoint's events since a moment delivered again, the oldest first, each with the same webhook-id."""
    asked = {"since": _moment(since), "until": until and _moment(until), "types": event, "status": status}

    async def act(client: "Client") -> dict[str, Any]:
        return await client.post(
            path_of(PATH, id_, "replay"), {name: value for name, value in asked.items() if value is not None}
        )

    told = with_client(url, act, tenant=tenant)
    if json:
        as_json(told)
        return
    facts({"replayed": told["replayed"], "go on with --since": told["next_since"]})


def _moment(text: str) -> str:
    """Return when `10m` ago was, or a day's midnight in UTC; any other text is the gateway's to judge."""
    from shared.config_values import seconds

    try:
        return (datetime.now(UTC) - timedelta(seconds=float(str(seconds(text))))).isoformat()
    except ValueError:
        pass
    try:
        return f"{date.fromisoformat(text)}T00:00:00Z"
    except ValueError:
        return text


def _to(one: dict[str, Any]) -> str:
    return str(one["webhook_endpoint_id"] or one["url"])


def _answer(one: dict[str, Any]) -> str:
    return str(one["status_code"] or one["error"] or "-")


def _excerpt(tried: dict[str, Any]) -> str:
    return " ".join((tried["excerpt"] or "").split())[:80]


def _show(one: dict[str, Any], *, json: bool) -> None:
    if json:
        as_json(one)
        return
    facts(
        {
            "id": one["id"],
            "event": f"{one['event_id']} ({one['type']}, {moment(one['event_at'])} UTC)",
            "to": one["url"] or one["webhook_endpoint_id"],
            "about": one["job_id"] or one["batch_id"],
            "status": one["status"],
            "tries": one["tries"],
            "next try": one["next_try_at"] and moment(one["next_try_at"]),
            "answer": one["status_code"] or one["error"],
        }
    )
