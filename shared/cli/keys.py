"""`sluice keys`: make keys, look at them, give them another secret, end them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.cli.calls import Tenant, Url, listed, path_of, with_client
from shared.cli.output import AsJson, as_json, facts, moment, table

if TYPE_CHECKING:
    from shared.cli.client import Client

PATH = "/v1/admin/keys"

app = typer.Typer(help="Make keys, list, rotate and revoke them.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="key_…")]


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="keys")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="what it is for")],
    scope: Annotated[list[str] | None, typer.Option(help="submit, read, webhooks, admin; repeat it")] = None,
    role: Annotated[str | None, typer.Option(help="for a person: owner, admin, viewer")] = None,
    model: Annotated[list[str] | None, typer.Option(help="the only models it may ask for; repeat it")] = None,
    team: Annotated[str | None, typer.Option(help="team_…")] = None,
    expires: Annotated[str | None, typer.Option(help="a time, 2030-01-31T12:00:00Z")] = None,
    tenant: Tenant = None,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """Make a key and print it, this once. Without scopes and role it may submit and read."""
    given = {
        "name": name,
        "scopes": scope,
        "role": role,
        "models": model,
        "team_id": team,
        "expires_at": expires,
        "tenant_id": tenant,
    }

    async def act(client: "Client") -> dict[str, Any]:
        return await client.post(PATH, {field: value for field, value in given.items() if value})

    _show(with_client(url, act), json=json)


@app.command("list")
def list_(
    tenant: Tenant = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 20,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """List keys, newest first, with the revoked ones."""
    page = listed(PATH, {"tenant_id": tenant}, limit=limit, url=url)
    if json:
        as_json(page)
        return
    columns = ("id", "prefix", "name", "tenant", "may", "models", "created (UTC)", "expires", "revoked")
    table(columns, [_row(key) for key in page["data"]])


def _row(key: dict[str, Any]) -> tuple[str, ...]:
    return (
        key["id"],
        key["prefix"] + "…",
        key["name"],
        key["tenant_id"],
        key["role"] or ", ".join(key["scopes"]),
        "all" if key["models"] is None else ", ".join(key["models"]),
        *(moment(key[when]) for when in ("created_at", "expires_at", "revoked_at")),
    )


@app.command()
def revoke(id_: Id, json: AsJson = False, url: Url = None) -> None:
    """End a key for good, everywhere within a second."""

    async def act(client: "Client") -> dict[str, Any]:
        return await client.delete(path_of(PATH, id_))

    _show(with_client(url, act), json=json)


@app.command()
def rotate(
    id_: Id,
    overlap: Annotated[int, typer.Option(min=0, help="seconds for which the old secret works on")] = 3600,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """Give a key a new secret and print it, this once."""

    async def act(client: "Client") -> dict[str, Any]:
        return await client.post(path_of(PATH, id_, "rotate"), {"overlap_seconds": overlap})

    _show(with_client(url, act), json=json)


def _show(key: dict[str, Any], *, json: bool) -> None:
    if json:
        as_json(key)
        return
    facts(
        {
            "id": key["id"],
            "name": key["name"],
            "tenant": key["tenant_id"],
            "team": key["team_id"],
            "may": key["role"] or ", ".join(key["scopes"]),
            "models": None if key["models"] is None else ", ".join(key["models"]),
            "prefix": key["prefix"] + "…",
            "expires": key["expires_at"] and moment(key["expires_at"]),
            "revoked": key["revoked_at"] and moment(key["revoked_at"]),
            "key": key.get("key"),
        }
    )
    if "key" in key:
        typer.echo("Keep the key now: it is not shown again.", err=True)
