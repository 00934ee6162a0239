"""The public shape of usage: JSON for programs, CSV for spreadsheets.

Money is a decimal string of what is known; `unpriced` says how many attempts it lacks.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from shared import ids
from shared.public import moment, money
from shared.quantiles import quantiles

FIELDS: Mapping[str, str] = {
    "tenant": "tenant_id",
    "team": "team_id",
    "key": "key_id",
    "user": "user",
    "model": "model",
    "provider": "provider",
    "tag": "tag",
}
"""What usage can be grouped by, and its name in a row."""

COUNTS = (
    "jobs", "errors", "input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens",
    "cost_usd", "unpriced", "saved_usd",
)  # fmt: skip
SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
_SHARES = tuple(SHARES.values())
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def shown(row: Any, groups: Sequence[str], start: datetime) -> dict[str, Any]:
    """Return what was used in the span that begins at `start`, of a row as `db.usage.read` has it."""
    return {
        **{FIELDS[group]: _group(row, group) for group in groups},
        "start": moment(start),
        "jobs": row.jobs,
        "errors": row.errors,
        **used(row),
        "saved_usd": money(row.saved_nanos),
        "latency_ms": dict(zip(SHARES, _latencies(row), strict=True)),
    }


def used(row: Any) -> dict[str, Any]:
    """Return the tokens and the cost of a row that adds up what was used."""
    return {
        "input_tokens": row.input_tokens,
        "cached_tokens": row.cached_tokens,
        "cache_write_tokens": row.cache_write_tokens,
        "output_tokens": row.output_tokens,
        "reasoning_tokens": row.reasoning_tokens,
        "cost_usd": money(row.cost_nanos),
        "unpriced": row.unpriced,
    }


def _latencies(row: Any) -> list[float | None]:
    return quantiles(dict(zip(row.buckets or (), row.counts or (), strict=True)), _SHARES)


def _group(row: Any, group: str) -> str | None:
    match group:
        case "team":
            return ids.show("team", row.team_id) if row.team_id.int else None
        case "key":
            return ids.show("key", row.key_id) if row.key_id.int else None
        case "user" | "tag":
            return str(row.label.partition(":")[2])
        case _:
            return str(getattr(row, FIELDS[group])) or None


def as_csv(rows: Iterable[Mapping[str, Any]], groups: Sequence[str]) -> str:
    """Return rows as CSV under headings. No cell is a formula, whatever callers call their users and tags."""
    written = io.StringIO()
    writer = csv.writer(written)
    names = (*(FIELDS[group] for group in groups), "start", *COUNTS)
    writer.writerow((*names, *(f"latency_{share}_ms" for share in SHARES)))
    for row in rows:
        cells = (*(row[name] for name in names), *(row["latency_ms"][share] for share in SHARES))
        writer.writerow([_cell(cell) for cell in cells])
    return written.getvalue()


def _cell(value: object) -> object:
    """Return a cell; a spreadsheet takes text with an apostrophe before it for text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
