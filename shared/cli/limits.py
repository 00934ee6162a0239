"""`sluice limits`: what each key admits at each model, as configured and as learned, and how it does."""

from typing import TYPE_CHECKING, Any

import typer

from shared.cli.calls import Url, with_client
from shared.cli.output import AsJson, as_json, table

if TYPE_CHECKING:
    from shared.cli.client import Client


def register(root: typer.Typer) -> None:
    """Add the command to the command line."""
    root.command()(limits)


def limits(json: AsJson = False, url: Url = None) -> None:
    """Show limits, configured and learned, what is left of them, and the health of each key at each model."""

    async def act(client: "Client") -> dict[str, Any]:
        return await client.get("/v1/admin/deployments")

    found = with_client(url, act)
    if json:
        as_json(found)
        return
    columns = (
        "deployment",
        "key",
        "health",
        "configured",
        "learned",
        "left",
        "waiting",
        "running",
        "jobs/s",
        "latency",
    )
    table(columns, [_row(one) for one in found["data"]])


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    lane, stated = one["lane"], one["limits"]
    latency = lane["latency_seconds"]
    health = one["health"] if not one["resting_seconds"] else f"rests {one['resting_seconds']:g} s"
    return (
        f"{one['provider']}/{one['model']}",
        one["key"] or "-",
        health,
        *(_values(stated[name]) for name in ("configured", "learned", "left")),
        f"{lane['waiting']:,}",
        f"{lane['in_motion']:,}",
        f"{lane['jobs_per_second']:g}",
        "-" if latency is None else f"{latency:.2f} s",
    )


def _values(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:,.0f}" for name, value in values.items()) or "-"
