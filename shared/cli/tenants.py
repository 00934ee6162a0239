"""`sluice tenants`: make tenants and look at them; only the bootstrap admin key may make one."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.cli.calls import Url, listed, with_client
from shared.cli.output import AsJson, as_json, facts, moment, table

if TYPE_CHECKING:
    from shared.cli.client import Client

app = typer.Typer(help="Make tenants and list them.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="tenants")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="what X-Sluice-Tenant may call it")], json: AsJson = False, url: Url = None
) -> None:
    """Make a tenant."""

    async def act(client: "Client") -> dict[str, Any]:
        return await client.post("/v1/admin/tenants", {"name": name})

    made = with_client(url, act)
    if json:
        as_json(made)
        return
    facts({"id": made["id"], "name": made["name"], "created": moment(made["created_at"])})


@app.command("list")
def list_(limit: Annotated[int, typer.Option(min=1, max=100_000)] = 20, json: AsJson = False, url: Url = None) -> None:
    """List tenants, newest first."""
    page = listed("/v1/admin/tenants", {}, limit=limit, url=url)
    if json:
        as_json(page)
        return
    rows = [(one["id"], one["name"], moment(one["created_at"]), moment(one["closed_at"])) for one in page["data"]]
    table(("id", "name", "created (UTC)", "closed"), rows)
