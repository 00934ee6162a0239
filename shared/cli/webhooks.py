"""`sluice webhooks`: endpoints that events are sent to, and a receiver on this machine to look at them with."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shared.cli.calls import Tenant, Url, listed, path_of, with_client
from shared.cli.output import AsJson, as_json, facts, moment, note, table

if TYPE_CHECKING:
    from shared.cli.client import Client

PATH = "/v1/webhook_endpoints"

app = typer.Typer(help="Keep the endpoints that events are sent to.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="webhook_…")]
Events = Annotated[list[str] | None, typer.Option("--event", help="a type, as job.completed, or job.*; repeat it")]
Name = Annotated[str | None, typer.Option(help="what it is called")]
Header = Annotated[list[str] | None, typer.Option(help="'name: value', sent with every event; repeat it")]
Full = Annotated[bool | None, typer.Option("--include-result/--no-result", help="events of jobs carry the results")]
Ordered = Annotated[bool | None, typer.Option("--ordered/--no-order", help="a job's events come one after another")]
Rpm = Annotated[int | None, typer.Option(help="events a minute at most; 0: no limit")]
Concurrency = Annotated[int | None, typer.Option(help="events that are sent at once at most")]


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="webhooks")


@app.command()
def create(
    url_: Annotated[str, typer.Argument(metavar="URL", help="where events are sent, https://…")],
    name: Name = None,
    event: Events = None,
    header: Header = None,
    include_result: Full = None,
    ordered: Ordered = None,
    rpm: Rpm = None,
    concurrency: Concurrency = None,
    signing: Annotated[Literal["v1", "v1a"], typer.Option(help="v1: HMAC, v1a: ed25519")] = "v1",
    tenant: Tenant = None,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """Make an endpoint and print its signing secret, this once. Without --event it is told of the ends of jobs."""
    given = _fields(url_, name or url_[:128], event or ["job.*"], header, include_result, ordered, rpm, concurrency)

    async def act(client: "Client") -> dict[str, Any]:
        return await client.post(PATH, await _expanded(client, given) | {"signing": signing})

    made = with_client(url, act, tenant=tenant)
    _show(made, json=json)
    if not event:
        note(f"No --event was named, so it is told of {', '.join(made['event_types'])}.")


@app.command("list")
def list_(
    tenant: Tenant = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 20,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """List endpoints, newest first."""
    page = listed(PATH, {}, limit=limit, url=url, tenant=tenant)
    if json:
        as_json(page)
        return
    table(("id", "name", "url", "events", "created (UTC)", "state"), [_row(one) for one in page["data"]])


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    created = moment(one["created_at"])
    return one["id"], one["name"], one["url"], ", ".join(one["event_types"]), created, _state(one)


def _state(one: dict[str, Any]) -> str:
    if not one["enabled"]:
        return f"disabled: {one['disabled_reason'] or 'from the start'}"
    return f"failing since {moment(one['failing_since'])}" if one["failing_since"] else "enabled"


@app.command()
def show(id_: Id, tenant: Tenant = None, json: AsJson = False, url: Url = None) -> None:
    """Show an endpoint."""

    async def act(client: "Client") -> dict[str, Any]:
        return await client.get(path_of(PATH, id_))

    _show(with_client(url, act, tenant=tenant), json=json)


@app.command()
def update(
    id_: Id,
    to: Annotated[str | None, typer.Option("--to", help="another URL")] = None,
    name: Name = None,
    event: Events = None,
    header: Header = None,
    include_result: Full = None,
    ordered: Ordered = None,
    rpm: Rpm = None,
    concurrency: Concurrency = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="whether events are sent")] = None,
    tenant: Tenant = None,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """Change an endpoint: what is not named stays. --enable begins anew with one that was disabled."""
    given = _fields(to, name, event, header, include_result, ordered, rpm, concurrency)
    given |= {} if enabled is None else {"enabled": enabled}

    async def act(client: "Client") -> dict[str, Any]:
        return await client.patch(path_of(PATH, id_), await _expanded(client, given))

    _show(with_client(url, act, tenant=tenant), json=json)


@app.command()
def delete(id_: Id, tenant: Tenant = None, json: AsJson = False, url: Url = None) -> None:
    """End an endpoint: nothing more is sent to it."""

    async def act(client: "Client") -> dict[str, Any]:
        return await client.delete(path_of(PATH, id_))

    ended = with_client(url, act, tenant=tenant)
    if json:
        as_json(ended)
        return
    facts({"deleted": ended["id"]})


@app.command()
def rotate(
    id_: Id,
    now: Annotated[bool, typer.Option("--now", help="end the old secret at once, not after 24 hours")] = False,
    tenant: Tenant = None,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """Give an endpoint a new signing secret and print it, this once. For 24 hours the old one signs beside it."""

    async def act(client: "Client") -> dict[str, Any]:
        kept = {"keep_old_secret_active_for_24_hours": not now}
        return await client.post(path_of(PATH, id_, "rotate_secret"), kept)

    _show(with_client(url, act, tenant=tenant), json=json)


@app.command("test")
def try_out(
    id_: Id,
    event: Annotated[str | None, typer.Option(help="the sample's type (default: one of the endpoint's)")] = None,
    tenant: Tenant = None,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """Send an endpoint a sample and print what its receiver answered; exit 1 where that was not 2xx."""

    async def act(client: "Client") -> dict[str, Any]:
        return await client.post(path_of(PATH, id_, "test"), {"event_type": event} if event else None)

    told = with_client(url, act, tenant=tenant)
    if json:
        as_json(told)
    else:
        facts({"sent": told["event_type"], "delivery": told["delivery_id"], "answer": told["status_code"]})
    if not 200 <= told["status_code"] < 300:
        raise typer.Exit(1)


@app.command()
def listen(
    port: Annotated[int, typer.Option(min=0, max=65535, help="the port it listens on; 0: any that is free")] = 9900,
    secret: Annotated[
        str | None,
        typer.Option(envvar="SLUICE_WEBHOOK_SECRET", help="whsec_… (default: that of the tenant's jobs and batches)"),
    ] = None,
    forward: Annotated[
        str | None, typer.Option(help="a URL of yours that every verified event is passed on to")
    ] = None,
    registered: Annotated[
        bool,
        typer.Option("--register", help="make an endpoint for it, for as long as it runs; the gateway must be allowed"),
    ] = False,
    event: Events = None,
    tenant: Tenant = None,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """Receive events on this machine, verify and print each, until interrupted."""
    from shared.cli.webhook_listen import Listener

    async def act(client: "Client") -> None:
        key, types = secret, await _types(client, event or ["*"]) if registered else []
        if key is None and not registered:
            key = (await client.get("/v1/webhook_signing_secret"))["signing_secret"]
        await Listener(client, key or "", forward=forward, json=json).run(port, types)

    with_client(url, act, tenant=tenant)


def _fields(
    to: str | None,
    name: str | None,
    event: list[str] | None,
    header: list[str] | None,
    include_result: bool | None,
    ordered: bool | None,
    rpm: int | None,
    concurrency: int | None,
) -> dict[str, Any]:
    given: dict[str, Any] = {
        "url": to,
        "name": name,
        "event_types": event,
        "include_result": include_result,
        "ordered": ordered,
        "concurrency": concurrency,
    }
    if header is not None:
        pairs = [one.partition(":") for one in header]
        given["headers"] = {key.strip(): value.strip() for key, _, value in pairs}
    return {field: value for field, value in given.items() if value is not None} | (
        {} if rpm is None else {"rpm": rpm or None}
    )


async def _expanded(client: "Client", given: dict[str, Any]) -> dict[str, Any]:
    """Return fields with the types that `job.*` stands for."""
    return given | {"event_types": await _types(client, given["event_types"])} if "event_types" in given else given


async def _types(client: "Client", wanted: list[str]) -> list[str]:
    known: list[str] = (await client.get("/v1/webhook_event_types"))["data"]
    found: list[str] = []
    for one in wanted:
        found += [type_ for type_ in known if type_.startswith(one[:-1])] if one.endswith("*") else [one]
    return found


def _show(one: dict[str, Any], *, json: bool) -> None:
    if json:
        as_json(one)
        return
    facts(
        {
            "id": one["id"],
            "name": one["name"],
            "url": one["url"],
            "events": ", ".join(one["event_types"]),
            "headers": ", ".join(one["headers"]) or None,
            "results": "included" if one["include_result"] else "not included",
            "order": "kept for each job" if one["ordered"] else None,
            "at most": f"{one['concurrency']} at once" + (f", {one['rpm']} a minute" if one["rpm"] else ""),
            "state": _state(one),
            "signing": f"{one['signing']}, {one['signing_secret_hint']}",
            "old secret until": one["old_secret_expires_at"] and moment(one["old_secret_expires_at"]),
            "signing secret": one.get("signing_secret"),
        }
    )
    if "signing_secret" in one and one["signing"] == "v1":
        typer.echo("Keep the signing secret now: it is not shown again.", err=True)
