"""`sluice alerts`: what an operator should have heard."""

from typing import Annotated

import typer

from shared.cli.calls import Url, listed
from shared.cli.output import AsJson, as_json, moment, table


def register(root: typer.Typer) -> None:
    """Add the command."""
    root.command()(alerts)


def alerts(
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 20,
    tenant: Annotated[str | None, typer.Option(help="only this tenant's, by name or id")] = None,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """List alerts, newest first."""
    page = listed("/v1/admin/alerts", {"tenant_id": tenant}, limit=limit, url=url)
    if json:
        as_json(page)
        return
    rows = [
        (moment(one["at"]), one["kind"], one["subject"], one["tenant_id"] or "-", _told(one), one["message"])
        for one in page["data"]
    ]
    table(("at (UTC)", "kind", "subject", "tenant", "told", "message"), rows)


def _told(alert: dict[str, object]) -> str:
    """Return how far the channels were told; a tenant is not shown that."""
    pending = alert.get("pending")
    if not isinstance(pending, list):
        return "not yet" if "pending" in alert else "-"
    if pending:
        return "not " + ", ".join(map(str, pending))
    return "given up" if alert.get("error") else "yes"
