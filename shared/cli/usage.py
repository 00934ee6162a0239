"""`sluice usage`: what was used and what it cost; `sluice usage import` compares that with a vendor's own figures."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.cli.calls import Url, with_client
from shared.cli.output import AsJson, as_json, cost, moment, table

if TYPE_CHECKING:
    from shared.cli.client import Client
    from shared.cli.usage_comparison import Difference

PATH = "/v1/usage"
ROWS = 10_000
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}

app = typer.Typer(help="Show what was used and what it cost.", invoke_without_command=True)


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="usage")


@app.callback()
def usage(
    context: typer.Context,
    by: Annotated[
        str, typer.Option(help="tenant, team, key, user, model, provider, tag; several with commas")
    ] = "model",
    since: Annotated[str | None, typer.Option(help="24h, 30d, 8w, or a day or time; default: a week")] = None,
    until: Annotated[str | None, typer.Option(help="a day or time; default: now")] = None,
    interval: Annotated[str, typer.Option(help="hour, day, week, month, all")] = "all",
    timezone: Annotated[str | None, typer.Option(help="whose days: Europe/Berlin; default: UTC")] = None,
    team: Annotated[str | None, typer.Option(help="only this team_…")] = None,
    key: Annotated[str | None, typer.Option(help="only this key_…")] = None,
    user: Annotated[str | None, typer.Option(help="only this end user")] = None,
    model: Annotated[str | None, typer.Option(help="only this model")] = None,
    provider: Annotated[str | None, typer.Option(help="only this provider")] = None,
    tag: Annotated[str | None, typer.Option(help="only jobs with this metadata: k=v, or k for any value")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV")] = False,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """Show what was used and what it cost, and the total of the whole time."""
    if context.invoked_subcommand is not None:
        return
    if json and as_csv:
        raise typer.BadParameter("choose one of --json and --csv")
    filters = {"team_id": team, "key_id": key, "user": user, "model": model, "provider": provider, "tag": tag}
    # One end for all requests, so that they are about the same time.
    end = until or datetime.now(UTC).isoformat()
    asked = {"start": since and _start(since), "end": end, "timezone": timezone, **filters}
    groups = tuple(dict.fromkeys(one for one in by.split(",") if one))

    async def act(client: "Client") -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        rows = await _read(client, groups, {**asked, "interval": interval})
        if as_csv:
            return rows, []
        # Without the group the gateway answers of one tenant only, though the rows may be of all.
        whole = await _read(client, ("tenant",) if "tenant" in groups else (), {**asked, "interval": "all"})
        return rows, whole if len(whole) < 2 else [_added(whole)]

    rows, total = with_client(url, act)
    if as_csv:
        from shared import usage_report

        typer.echo(usage_report.as_csv(rows, groups), nl=False)
    elif json:
        as_json({"object": "list", "data": rows, "total": total[0] if total else None, "has_more": False})
    else:
        _show(rows, total, groups, spans=interval != "all")


async def _read(client: "Client", groups: tuple[str, ...], asked: dict[str, str | None]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    after = None
    while True:
        page = await client.get(PATH, group_by=",".join(groups) or None, limit=ROWS, after=after, **asked)
        rows += page["data"]
        after = page["last_id"]
        if not page["has_more"]:
            return rows


def _added(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return rows of several tenants as one; latencies do not add up, and so are not known."""
    amounts = {name: format(sum(Decimal(row[name]) for row in rows), "f") for name in ("cost_usd", "saved_usd")}
    counts = {name: sum(row[name] for row in rows) for name, value in rows[0].items() if isinstance(value, int)}
    latency = dict.fromkeys(rows[0]["latency_ms"])
    return {"start": min(row["start"] for row in rows), **counts, **amounts, "latency_ms": latency}


def _start(since: str) -> str:
    """Return when `30d` ago was; any other text is the gateway's to judge."""
    number, unit = since[:-1], since[-1:]
    if number.isascii() and number.isdigit() and len(number) < 5 and unit in _UNITS:
        return (datetime.now(UTC) - timedelta(**{_UNITS[unit]: int(number)})).isoformat()
    return since


def _show(rows: list[dict[str, Any]], total: list[dict[str, Any]], groups: tuple[str, ...], *, spans: bool) -> None:
    columns = ("jobs", "errors", "input", "cached", "output", "cost", "saved", "p50", "p95", "p99")
    lines = [
        (*([moment(row["start"])] if spans else []), *(_name(row, group) for group in groups), *_cells(row))
        for row in rows
    ]
    named = len(groups) + spans
    if total and named:
        lines.append(("total", *[""] * (named - 1), *_cells(total[0])))
    table((*(["start (UTC)"] if spans else []), *groups, *columns), lines)
    if any(row["unpriced"] for row in (*rows, *total)):
        typer.echo("+ the price of some attempts is not known: the cost is at least this.", err=True)


def _name(row: dict[str, Any], group: str) -> str:
    return str(row[f"{group}_id" if group in ("tenant", "team", "key") else group] or "-")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{row['jobs']:,}",
        f"{row['errors']:,}",
        *(f"{row[f'{kind}_tokens']:,}" for kind in ("input", "cached", "output")),
        cost(row["cost_usd"]) + ("+" if row["unpriced"] else ""),
        cost(row["saved_usd"]),
        *(_latency(row["latency_ms"][share]) for share in ("p50", "p95", "p99")),
    )


def _latency(ms: float | None) -> str:
    return "-" if ms is None else f"{ms:,.0f} ms" if ms < 10_000 else f"{ms / 1000:,.0f} s"


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="a vendor's export of usage or cost, CSV or JSON; see docs/usage.md")],
    tolerance: Annotated[float, typer.Option(min=0, max=100, help="the difference in % that is no difference")] = 1.0,
    provider: Annotated[
        str | None, typer.Option(help="compare with this provider; default: those of the vendor")
    ] = None,
    json: AsJson = False,
    url: Url = None,
) -> None:
    """Compare a vendor's export with what was booked here, by day and upstream model; exit code 1 if it differs."""
    from shared.cli.usage_comparison import compared, days_of, must_be_used, within
    from shared.cli.usage_export import read

    try:
        export = read(file.read_bytes())
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}") from None

    async def act(client: "Client") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for first, last in days_of(export):
            page = await client.get("/v1/admin/usage/upstream", start=first.isoformat(), end=last.isoformat())
            found += page["data"]
        return found

    ours = with_client(url, act)
    if provider is not None:
        must_be_used(provider, ours)
    found = compared(export, ours, provider=provider, tolerance=Decimal(str(tolerance)))
    if json:
        as_json({"object": "usage.comparison", "vendor": export.vendor, "data": [_shown(one) for one in found]})
    else:
        columns = ("day (UTC)", "model", "what", "ours", "theirs", "difference", "%", "")
        table(columns, [_line(one) for one in found])
    if not within(found):
        raise typer.Exit(1)


def _line(one: "Difference") -> tuple[str, ...]:
    shape = "{:,.4f}" if one.what == "cost_usd" else "{:,}"
    figures = (shape.format(value) for value in (one.ours, one.theirs, one.ours - one.theirs))
    remarks = [*([] if one.within else ["differs"]), *([one.remark] if one.remark else [])]
    return (one.day.isoformat(), one.model or "-", one.what, *figures, f"{one.percent:+.1f}", ", ".join(remarks))


def _shown(one: "Difference") -> dict[str, Any]:
    def number(value: Decimal) -> int | str:
        return format(value, "f") if one.what == "cost_usd" else int(value)

    return {
        "date": one.day.isoformat(),
        "model": one.model or None,
        "what": one.what,
        "ours": number(one.ours),
        "theirs": number(one.theirs),
        "difference": number(one.ours - one.theirs),
        "percent": round(float(one.percent), 2),
        "within": one.within,
        "remark": one.remark or None,
    }
