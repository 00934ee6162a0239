"""`sluice budgets`: limit what is spent, look at what is left, change a limit, end it."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shared.cli.calls import Tenant, Url, listed, path_of, with_client
from shared.cli.output import AsJson, as_json, facts, moment, table

if TYPE_CHECKING:
    from shared.cli.client import Client

PATH = "/v1/admin/budgets"

app = typer.Typer(help="Limit what is spent.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="budget_…")]
Kind = Annotated[Literal["hard", "soft"] | None, typer.Option(help="soft: only alerts")]
OnExhausted = Annotated[Literal["reject", "hold", "downgrade"] | None, typer.Option(help="what becomes of jobs then")]
DowngradeTo = Annotated[str | None, typer.Option(help="the cheaper model, with --on-exhausted downgrade")]
AllowUnpriced = Annotated[
    bool | None, typer.Option("--allow-unpriced/--no-allow-unpriced", help="admit jobs whose price nobody knows")
]
Threshold = Annotated[list[int] | None, typer.Option(help="percent at which to alert; repeat it")]


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="budgets")


@app.command("list")
def list_(
    tenant: Tenant = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 20,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """List budgets, newest first, with what is spent of them."""
    page = listed(PATH, {"tenant_id": tenant}, limit=limit, url=url)
    if json:
        as_json(page)
        return
    columns = ("id", "of", "window", "limit", "spent", "held", "left", "ends (UTC)", "kind", "then")
    table(columns, [_row(budget) for budget in page["data"]])


def _row(budget: dict[str, Any]) -> tuple[str, ...]:
    present = budget["present"]
    return (
        budget["id"],
        _scope(budget),
        budget["window"],
        *("$" + amount for amount in (budget["limit_usd"], present["spent_usd"])),
        *("$" + present[name] for name in ("reserved_usd", "remaining_usd")),
        moment(present["ends_at"]),
        budget["kind"],
        _then(budget),
    )


def _then(budget: dict[str, Any]) -> str:
    """Return what becomes of jobs when nothing is left: of a soft budget's, nothing."""
    if budget["kind"] == "soft":
        return "-"
    then = str(budget["on_exhausted"])
    return f"{then} to {budget['downgrade_to']}" if budget["downgrade_to"] else then


def _scope(budget: dict[str, Any]) -> str:
    named = {name.removesuffix("_id"): value for name, value in budget["scope"].items()}
    return ", ".join(f"{name}={value}" for name, value in named.items())


@app.command()
def create(
    limit: Annotated[str, typer.Argument(metavar="USD", help="how much may be spent in a window")],
    window: Annotated[Literal["hour", "day", "week", "month", "total"], typer.Argument(help="by the calendar")],
    tenant: Tenant = None,
    team: Annotated[str | None, typer.Option(help="team_…")] = None,
    key: Annotated[str | None, typer.Option(help="key_…")] = None,
    user: Annotated[str | None, typer.Option(help="an end user, as requests name it")] = None,
    tag: Annotated[str | None, typer.Option(help="K=V of the jobs' metadata")] = None,
    model: Annotated[str | None, typer.Option(help="a model's name, or provider/model")] = None,
    kind: Kind = None,
    on_exhausted: OnExhausted = None,
    downgrade_to: DowngradeTo = None,
    allow_unpriced: AllowUnpriced = None,
    timezone: Annotated[str | None, typer.Option(help="whose calendar, Europe/Berlin")] = None,
    threshold: Threshold = None,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """Make a budget. Of all that is said of whose spend it limits, everything must be true of a job."""
    scope = {"tenant_id": tenant, "team_id": team, "key_id": key, "user": user, "tag": tag, "model": model}
    given = _given(kind, on_exhausted, downgrade_to, threshold, allow_unpriced=allow_unpriced) | (
        {"timezone": timezone} if timezone else {}
    )
    body = {"scope": {name: value for name, value in scope.items() if value}, "window": window, "limit_usd": limit}

    async def act(client: "Client") -> dict[str, Any]:
        return await client.post(PATH, body | given)

    _show(with_client(url, act), json=json)


@app.command("set")
def set_(
    id_: Id,
    limit: Annotated[str | None, typer.Option(metavar="USD")] = None,
    kind: Kind = None,
    on_exhausted: OnExhausted = None,
    downgrade_to: DowngradeTo = None,
    allow_unpriced: AllowUnpriced = None,
    threshold: Threshold = None,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """Change a budget. Jobs that it holds are looked at anew."""
    body = _given(kind, on_exhausted, downgrade_to, threshold, allow_unpriced=allow_unpriced) | (
        {"limit_usd": limit} if limit else {}
    )

    async def act(client: "Client") -> dict[str, Any]:
        return await client.patch(path_of(PATH, id_), body)

    _show(with_client(url, act), json=json)


@app.command()
def delete(id_: Id, json: AsJson = False, url: Url = None) -> None:
    """End a budget: it limits nothing any more."""

    async def act(client: "Client") -> dict[str, Any]:
        return await client.delete(path_of(PATH, id_))

    _show(with_client(url, act), json=json)


def _given(
    kind: str | None,
    on_exhausted: str | None,
    downgrade_to: str | None,
    thresholds: list[int] | None,
    *,
    allow_unpriced: bool | None,
) -> dict[str, Any]:
    fields = {
        "kind": kind,
        "on_exhausted": on_exhausted,
        "downgrade_to": downgrade_to,
        "thresholds": thresholds or None,
    }
    return {name: value for name, value in {**fields, "allow_unpriced": allow_unpriced}.items() if value is not None}


def _show(budget: dict[str, Any], *, json: bool) -> None:
    if json:
        as_json(budget)
        return
    present = budget["present"]
    facts(
        {
            "id": budget["id"],
            "of": _scope(budget),
            "limit": f"${budget['limit_usd']} ({budget['window']}, {budget['timezone']})",
            "kind": budget["kind"],
            "then": _then(budget),
            "spent": "$" + present["spent_usd"],
            "held": "$" + present["reserved_usd"],
            "left": "$" + present["remaining_usd"],
            "ends": present["ends_at"] and moment(present["ends_at"]),
            "alerts": ", ".join(f"{percent} %" for percent in budget["thresholds"]) or None,
            "ended": "now" if budget.get("deleted") else None,
        }
    )
