"""`sluice files`: put files into the gateway and get them out again, in pieces both ways."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.cli.calls import Tenant, Url, listed, path_of, with_client
from shared.cli.output import AsJson, as_json, facts, moment, note, table

if TYPE_CHECKING:
    from shared.cli.client import Client

app = typer.Typer(help="Upload, list, download and delete files.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="file_…")]


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="files")


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 20,
    purpose: Annotated[str | None, typer.Option(help="only those of a purpose, e.g. batch")] = None,
    tenant: Tenant = None,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """List files, newest first."""
    page = listed("/v1/files", {"purpose": purpose}, limit=limit, url=url, tenant=tenant)
    if json:
        as_json(page)
        return
    columns = ("id", "purpose", "bytes", "created (UTC)", "expires (UTC)", "name")
    table(columns, [_row(file) for file in page["data"]])


def _row(file: dict[str, Any]) -> tuple[str, ...]:
    return (
        file["id"],
        file["purpose"],
        f"{file['bytes']:,}",
        moment(file["created_at"]),
        moment(file["expires_at"]),
        file["filename"],
    )


@app.command()
def show(id_: Id, tenant: Tenant = None, json: AsJson = False, url: Url = None) -> None:
    """Show a file."""

    async def act(client: "Client") -> dict[str, Any]:
        return await client.get(path_of("/v1/files", id_))

    _show(with_client(url, act, tenant=tenant), json=json)


@app.command()
def upload(
    path: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False)],
    purpose: Annotated[str, typer.Option(help="what it is for")] = "batch",
    expires_after: Annotated[str | None, typer.Option(help="a time such as 12h or 7d; from an hour to 30 days")] = None,
    tenant: Tenant = None,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """Upload a file."""
    fields = {"purpose": purpose}
    if expires_after is not None:
        fields |= {"expires_after[anchor]": "created_at", "expires_after[seconds]": _seconds(expires_after)}

    async def act(client: "Client") -> dict[str, Any]:
        return await client.upload("/v1/files", path, fields)

    _show(with_client(url, act, tenant=tenant), json=json)


def _seconds(text: str) -> str:
    from shared.config_values import seconds

    try:
        return f"{seconds(text):.0f}"
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--expires-after") from None


@app.command()
def download(
    id_: Id,
    out: Annotated[Path | None, typer.Option("--out", help="where to (default: standard output)")] = None,
    tenant: Tenant = None,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """Download a file's content; with `--json`, say on standard output how much it was."""
    from shared.cli.client import CliError

    if json and out is None:
        raise CliError("--json needs --out: standard output cannot hold both")

    async def act(client: "Client") -> int:
        # Opened when the first piece is there, so that a refusal leaves no empty file.
        if out is None:
            return await client.download(path_of("/v1/files", id_, "content"), lambda: nullcontext(sys.stdout.buffer))
        return await client.download(path_of("/v1/files", id_, "content"), lambda: out.open("wb"))

    size = with_client(url, act, tenant=tenant)
    if json:
        as_json({"id": id_, "bytes": size, "path": str(out)})
    elif out is not None:
        note(f"{size:,} bytes to {out}")


@app.command()
def delete(id_: Id, tenant: Tenant = None, json: AsJson = False, url: Url = None) -> None:
    """Delete a file; a batch's results stay."""

    async def act(client: "Client") -> dict[str, Any]:
        return await client.delete(path_of("/v1/files", id_))

    answer = with_client(url, act, tenant=tenant)
    if json:
        as_json(answer)
    else:
        note(f"{id_} is deleted")


def _show(file: dict[str, Any], *, json: bool) -> None:
    if json:
        as_json(file)
        return
    facts(
        {
            "id": file["id"],
            "name": file["filename"],
            "purpose": file["purpose"],
            "bytes": f"{file['bytes']:,}",
            "created": moment(file["created_at"]),
            "expires": moment(file["expires_at"]) if file["expires_at"] else None,
        }
    )
