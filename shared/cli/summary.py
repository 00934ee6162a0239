"""What a submission came to: how its jobs ended, what they cost, by model, and why some failed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared.cli.output import clean, facts, note
from shared.cli.progress import Tally, duration, money, usd
from shared.cli.results import Record

Json = dict[str, Any]

ENDINGS = ("completed", "failed", "cancelled", "expired")
MOST_SHOWN = 5


@dataclass(frozen=True, slots=True)
class OfModel:
    """What the completed jobs of a model come to; `model` is as the provider calls it, the cost None if unknown."""

    model: str
    completed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal | None = Decimal(0)

    def and_(self, record: Record) -> "OfModel":
        """Return this and one more job together."""
        cost = usd(record.cost_usd)
        return OfModel(
            self.model,
            self.completed + 1,
            self.input_tokens + record.input_tokens,
            self.output_tokens + record.output_tokens,
            None if self.cost is None or cost is None else self.cost + cost,
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """An error's code, the first message that came with it, how many jobs ended with it, and one of them."""

    code: str
    message: str
    jobs: int
    custom_id: str


@dataclass(frozen=True, slots=True)
class Summary:
    """A submission at its end. `done` is how many jobs ended in this run of the command, of `seconds`."""

    batches: Sequence[Mapping[str, Any]]
    results: Path
    seconds: float
    done: int
    spent_before: bool
    models: tuple[OfModel, ...]
    failures: tuple[Failure, ...]

    @property
    def endings(self) -> dict[str, int]:
        """How many jobs ended in which status."""
        return {name: sum(batch["request_counts"][name] for batch in self.batches) for name in ENDINGS}

    @property
    def rate(self) -> float:
        """Jobs per second in this run."""
        return self.done / self.seconds if self.seconds else 0.0


def of_records(records: Iterable[Record]) -> tuple[tuple[OfModel, ...], tuple[Failure, ...]]:
    """Return what results say of each model, and of errors, the most frequent first.

    A job's last record counts: it may have run again. Errors are told apart by their codes, since messages may name the
    job or the moment.
    """
    models: dict[str, OfModel] = {}
    failed: dict[str, str] = {}
    messages: dict[str, str] = {}
    for record in records:
        if not record.error:
            failed.pop(record.custom_id, None)
            models[record.model] = models.get(record.model, OfModel(record.model)).and_(record)
        else:
            code, _, message = record.error.partition(": ")
            failed[record.custom_id] = code
            messages.setdefault(code, message)
    found: dict[str, Failure] = {}
    for custom_id, code in failed.items():
        before = found.get(code, Failure(code, messages[code], 0, custom_id))
        found[code] = replace(before, jobs=before.jobs + 1)
    ranked = sorted(found.values(), key=lambda one: -one.jobs)
    return tuple(models[name] for name in sorted(models)), tuple(ranked)


def as_object(summary: Summary) -> Json:
    """Return a summary as JSON for programs; money is a decimal string, null where it is unknown."""
    tally = Tally.of(summary.batches)
    return {
        "object": "submission",
        "results": str(summary.results),
        "batches": [batch["id"] for batch in summary.batches],
        "requests": sum(batch["request_counts"]["total"] for batch in summary.batches),
        **summary.endings,
        "usage": {"input_tokens": tally.input_tokens, "output_tokens": tally.output_tokens},
        "cost_usd": _exact(tally.cost),
        "spent_before": summary.spent_before,
        "seconds": round(summary.seconds, 3),
        "jobs_per_second": round(summary.rate, 3),
        "models": [
            {
                "model": one.model,
                "completed": one.completed,
                "usage": {"input_tokens": one.input_tokens, "output_tokens": one.output_tokens},
                "cost_usd": _exact(one.cost),
            }
            for one in summary.models
        ],
        "errors": [
            {"code": one.code, "message": one.message, "jobs": one.jobs, "custom_id": one.custom_id}
            for one in summary.failures
        ],
    }


def show(summary: Summary, *, console: Console | None = None) -> None:
    """Show a summary: as tables on a terminal's standard error, else as plain lines, errors on standard error."""
    console = console or Console(stderr=True, highlight=False)
    tally = Tally.of(summary.batches)
    endings = summary.endings
    lines = {
        "completed": f"{endings['completed']:,}",
        "failed": f"{endings['failed']:,}",
        "cancelled": f"{endings['cancelled']:,}" if endings["cancelled"] else None,
        "expired": f"{endings['expired']:,}" if endings["expired"] else None,
        "cost": money(tally.cost) + (" (spent before)" if summary.spent_before else ""),
        "tokens": f"{tally.input_tokens:,} in, {tally.output_tokens:,} out",
        "time": duration(summary.seconds),
        "rate": f"{summary.rate:,.1f} jobs/s" if summary.done else None,
        "results": str(summary.results),
    }
    models = [
        (one.model or "-", f"{one.completed:,}", f"{one.input_tokens:,}", f"{one.output_tokens:,}", money(one.cost))
        for one in summary.models
    ]
    failures = [(one.code, f"{one.jobs:,}", one.custom_id, one.message) for one in summary.failures[:MOST_SHOWN]]
    if console.is_terminal:
        _draw(console, ("", ""), [(name, text) for name, text in lines.items() if text is not None])
        if len(models) > 1:
            _draw(console, ("model", "completed", "tokens in", "tokens out", "cost"), models)
        if failures:
            _draw(console, ("error", "jobs", "for example", "message"), failures)
    else:
        facts(lines)
        for name, completed, taken, given, cost in models if len(models) > 1 else ():
            typer.echo(clean(f"{name}: {completed} completed, {taken} tokens in, {given} out, {cost}"))
        for code, jobs, custom_id, message in failures:
            note(f"{jobs} of the failed ({custom_id}): {code}: {message}")
    if len(summary.failures) > MOST_SHOWN:
        note(f"… and {len(summary.failures) - MOST_SHOWN:,} other errors")


def _draw(console: Console, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    shown = Table(show_header=any(columns), header_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(clean(cell)) for cell in row))
    console.print(shown)


def _exact(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:f}"
