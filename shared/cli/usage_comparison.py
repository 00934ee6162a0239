"""A vendor's export against what was booked here: by day of UTC and model, in tokens and dollars."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from shared.cli.client import CliError
from shared.cli.usage_export import Export, models

DAYS_AT_ONCE = 31
CENT = Decimal("0.01")
"""Vendors round to it."""

WHAT = ("input_tokens", "cached_tokens", "output_tokens", "cost_usd")
Figure = tuple[date, str, str]
"""What is compared: a day, a model and one of `WHAT`."""

_SNAPSHOT = re.compile(r"-(?:\d{8}|\d{4}-\d{2}-\d{2}|latest)$")


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of one model on one day, from both sides. `percent` is of the larger one."""

    day: date
    model: str
    what: str
    ours: Decimal
    theirs: Decimal
    percent: Decimal
    within: bool
    remark: str = ""


def days_of(export: Export) -> Iterator[tuple[date, date]]:
    """Yield the first and last days of an export, in stretches that the gateway answers at once."""
    first, last = min(line.day for line in export.lines), max(line.day for line in export.lines)
    if (last - first).days > 10 * DAYS_AT_ONCE:
        raise CliError(f"the export is of {(last - first).days} days; compare at most {10 * DAYS_AT_ONCE}")
    while first <= last:
        yield first, min(last, first + timedelta(days=DAYS_AT_ONCE - 1))
        first += timedelta(days=DAYS_AT_ONCE)


def canonical(model: str) -> str:
    """Return a model's name as both sides have it.

    What is asked for as `claude-haiku-4-5` is billed as `claude-haiku-4-5-20251001`, or as `Claude Haiku 4.5`.
    """
    name = re.sub(r"\s+", " ", model.strip()).lower()
    if " " in name:
        name = name.replace(" ", "-").replace(".", "-")
    return _SNAPSHOT.sub("", name.removeprefix("models/"))


def compared(
    export: Export, ours: Iterable[Mapping[str, Any]], *, provider: str | None, tolerance: Decimal
) -> list[Difference]:
    """Return every figure that the export states, with ours; `tolerance` is in percent.

    `ours` are rows of the gateway: those of `provider` count, else those of the vendor's kind. Where the export names
    no models, ours are added up.
    """
    rows = [row for row in ours if _of_vendor(row, export.vendor, provider)]
    by_model = bool(models(export.lines))
    theirs, booked = defaultdict[Figure, Decimal](Decimal), defaultdict[Figure, Decimal](Decimal)
    remarks: dict[tuple[date, str], str] = {}
    for line in export.lines:
        for what in WHAT:
            value = getattr(line, what)
            if value is not None:
                theirs[line.day, canonical(line.model), what] += value
    for row in rows:
        day, model = date.fromisoformat(row["date"]), canonical(row["model"]) if by_model else ""
        for what in WHAT:
            booked[day, model, what] += Decimal(row[what] or 0)
        if row["unpriced"] or row["estimated"]:
            remarks[day, model] = ", ".join(f"{row[name]} {name}" for name in ("unpriced", "estimated") if row[name])
    stated = [what for what in WHAT if any(name == what for _, _, name in theirs)]
    found = []
    for day, model in sorted({(day, model) for day, model, _ in (*theirs, *booked)}):
        for what in stated:
            mine, other = booked[day, model, what], theirs[day, model, what]
            percent, good = _apart(mine, other, tolerance, CENT if what == "cost_usd" else Decimal(0))
            found.append(Difference(day, model, what, mine, other, percent, good, remarks.get((day, model), "")))
    return found


def must_be_used(provider: str, ours: Iterable[Mapping[str, Any]]) -> None:
    """Raise CliError where nothing was used of a provider: every figure would differ, and say nothing."""
    used = sorted({str(row["provider"]) for row in ours})
    if provider not in used:
        raise CliError(
            f"there is no provider {provider!r} in what was used in the days of the export; "
            f"used were: {', '.join(used) or 'none'}"
        )


def within(found: Sequence[Difference]) -> bool:
    """Tell whether no figure differs by more than the tolerance."""
    return all(one.within for one in found)


def _of_vendor(row: Mapping[str, Any], vendor: str | None, provider: str | None) -> bool:
    if provider is not None:
        return bool(row["provider"] == provider)
    return vendor is None or bool(row["kind"] == vendor)


def _apart(mine: Decimal, other: Decimal, tolerance: Decimal, least: Decimal) -> tuple[Decimal, bool]:
    """Return the difference in percent, and whether it is within the tolerance or less than `least`."""
    apart, larger = mine - other, max(abs(mine), abs(other))
    percent = Decimal(100) * apart / larger if larger else Decimal(0)
    return percent, abs(apart) < least or abs(percent) <= tolerance
