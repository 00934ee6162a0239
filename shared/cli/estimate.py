"""`sluice submit --estimate`: what a file's requests would cost, asked of the gateway before anything is sent."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from shared.cli.calls import with_client
from shared.cli.client import Client, Json
from shared.cli.lines import Defaults, Survey, chunk_body
from shared.cli.output import as_json, table
from shared.cli.progress import money, usd

PATH = "/v1/estimate"


@dataclass(frozen=True, slots=True)
class Sum:
    """What requests come to; costs in USD, None where nobody knows one of them."""

    jobs: int = 0
    input: int = 0
    expected: int = 0
    most: int = 0
    cost: Decimal | None = Decimal(0)
    most_cost: Decimal | None = Decimal(0)

    def and_(self, found: Json) -> "Sum":
        """Return this and an estimate, or one of its targets', together."""
        output, cost = found["output_tokens"], found["cost_usd"]
        return Sum(
            self.jobs + found["jobs"],
            self.input + found["input_tokens"],
            self.expected + output["expected"],
            self.most + output["most"],
            _added(self.cost, usd(cost["expected"])),
            _added(self.most_cost, usd(cost["most"])),
        )

    def row(self, name: str) -> tuple[str, ...]:
        """Return it as a row of the table."""
        output = (f"{self.expected:,}", f"{self.most:,}")
        return (name, f"{self.jobs:,}", f"{self.input:,}", *output, money(self.cost), money(self.most_cost))

    def as_object(self) -> Json:
        """Return it as JSON, in the gateway's shape of an estimate."""
        costs = {"expected": self.cost, "most": self.most_cost}
        return {
            "jobs": self.jobs,
            "input_tokens": self.input,
            "output_tokens": {"expected": self.expected, "most": self.most},
            "cost_usd": {name: None if cost is None else f"{cost:f}" for name, cost in costs.items()},
        }


def show(path: Path, surveyed: Survey, defaults: Defaults, *, json: bool, url: str | None) -> None:
    """Print what a file's requests would cost, target by target. Raises CliError."""

    async def act(client: Client) -> list[Json]:
        bodies = (chunk_body(path, chunk, defaults) for chunk in surveyed.chunks)
        return [await client.post(PATH, body, repeatable=True) for body in bodies]

    found = with_client(url, act)
    targets: dict[str, Sum] = {}
    for one in (target for part in found for target in part["by_target"]):
        targets[one["target"]] = targets.get(one["target"], Sum()).and_(one)
    if json:
        by_target = [{"target": name, **total.as_object()} for name, total in sorted(targets.items())]
        as_json({"object": "estimate", **_all(found).as_object(), "by_target": by_target})
        return
    rows = [total.row(name) for name, total in sorted(targets.items())]
    columns = ("target", "requests", "tokens in", "out, expected", "at most", "cost, expected", "at most ")
    table(columns, [*rows, _all(found).row("all")])


def _all(found: Iterable[Json]) -> Sum:
    total = Sum()
    for part in found:
        total = total.and_(part)
    return total


def _added(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return None if one is None or other is None else one + other
