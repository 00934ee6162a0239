"""Vendors' exports of usage and cost, read into one shape. `docs/usage.md` says where each comes from.

Tokens are counted as everywhere in Sluice: `input` holds the cached ones, which Anthropic counts apart. What a file
does not say is None, never 0.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from shared.cli.client import CliError

LARGEST = 200 * 2**20


@dataclass(frozen=True, slots=True)
class Line:
    """What a vendor counted of a model in a day of UTC, or a part of that. `model` is '' where it does not say."""

    day: date
    model: str
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Export:
    """A file: whose (None: it does not say), and its lines."""

    vendor: str | None
    lines: tuple[Line, ...]


Row = Mapping[str, Any]


def read(raw: bytes) -> Export:
    """Return what an export says. Raises CliError where it is none that is known, or names the line that is wrong."""
    if len(raw) > LARGEST:
        raise CliError(f"the export is larger than {LARGEST >> 20} MB; export fewer days")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CliError("the export is not UTF-8 text") from None
    vendor, lines = _of_json(text) if text.lstrip()[:1] in ("{", "[") else _of_csv(text)
    if not lines:
        raise CliError("the export has no usage in it")
    return Export(vendor, lines)


# ------------------------------------------------------------------ CSV


def _of_csv(text: str) -> tuple[str | None, tuple[Line, ...]]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    columns = {(name or "").strip() for name in rows.fieldnames or ()}
    for needed, vendor, line in _CSV:
        if needed <= columns:
            return vendor, tuple(_lines(rows, line))
    raise CliError(
        f"the export has columns that are not known: {', '.join(sorted(columns))[:200]}. Give it the columns "
        "date, model, and some of input_tokens, cached_tokens, output_tokens, cost_usd"
    )


def _lines(rows: "csv.DictReader[str]", line: Callable[[Row], Line | None]) -> Iterator[Line]:
    for row in rows:
        try:
            found = line({(name or "").strip(): value or "" for name, value in row.items()})
        except (ValueError, InvalidOperation, KeyError, TypeError, OverflowError) as error:
            raise CliError(f"line {rows.line_num} of the export cannot be read: {str(error)[:200]}") from None
        if found is not None:
            yield found


def _anthropic_usage_csv(row: Row) -> Line:
    kinds = ("no_cache", "cache_write_5m", "cache_write_1h", "cache_read")
    read = {kind: _count(row.get(f"usage_input_tokens_{kind}")) or 0 for kind in kinds}
    output = _count(row["usage_output_tokens"])
    day, model = _day(row["usage_date_utc"]), row["model_version"]
    return Line(day, model, sum(read.values()), read["cache_read"], output)


def _anthropic_cost_csv(row: Row) -> Line:
    return Line(_day(row["usage_date_utc"]), row.get("model", ""), cost_usd=_dollars(row["cost_usd"]))


def _openai_usage_csv(row: Row) -> Line | None:
    if not row["input_tokens"] and not row["output_tokens"]:  # a day without any
        return None
    return _openai_usage(_openai_day(row), row)


def _openai_cost_csv(row: Row) -> Line | None:
    if not row["amount_value"]:
        return None
    _in_dollars(row.get("amount_currency"))
    return Line(_openai_day(row), _of_line_item(row.get("line_item")), cost_usd=_dollars(row["amount_value"]))


def _openai_day(row: Row) -> date:
    return _day(row.get("start_time") or row["start_time_iso"])


def _plain_csv(row: Row) -> Line:
    cached, cost = _count(row.get("cached_tokens")), row.get("cost_usd")
    return Line(
        _day(row["date"]),
        row["model"],
        _count(row.get("input_tokens")),
        cached,
        _count(row.get("output_tokens")),
        _dollars(cost) if cost else None,
    )


# The columns by which each is known, the first that fits.
_CSV: tuple[tuple[set[str], str | None, Callable[[Row], Line | None]], ...] = (
    ({"usage_date_utc", "model_version", "usage_output_tokens"}, "anthropic", _anthropic_usage_csv),
    ({"usage_date_utc", "cost_usd"}, "anthropic", _anthropic_cost_csv),
    ({"start_time", "amount_value"}, "openai", _openai_cost_csv),
    ({"start_time", "input_tokens", "output_tokens"}, "openai", _openai_usage_csv),
    ({"date", "model"}, None, _plain_csv),
)


# ------------------------------------------------------------------ JSON


def _of_json(text: str) -> tuple[str | None, tuple[Line, ...]]:
    try:
        value = json.loads(text, parse_float=Decimal)
        pages = value if isinstance(value, list) else [value]
        parts = [(bucket, result) for page in pages for bucket in page["data"] for result in bucket["results"]]
        if any(page.get("has_more") for page in pages[-1:]):
            raise CliError("the export is not whole: its last page says that there are more; put all pages in a list")
        found = [_result(bucket, result) for bucket, result in parts]
    except (ValueError, InvalidOperation, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise CliError(
            f"the export is not a page of a vendor's usage or cost report, nor a list of them ({str(error)[:200]})"
        ) from None
    vendors = {vendor for vendor, _ in found}
    if len(vendors) > 1:
        raise CliError("the export holds pages of more than one vendor")
    return (vendors.pop() if vendors else None), tuple(line for _, line in found)


def _result(bucket: Row, result: Row) -> tuple[str, Line]:
    if "start_time" in bucket:
        return "openai", _openai_result(_day(str(bucket["start_time"])), result)
    return "anthropic", _anthropic_result(_day(bucket["starting_at"]), result)


def _openai_result(day: date, result: Row) -> Line:
    if "amount" in result:
        _in_dollars(result["amount"].get("currency"))
        return Line(day, _of_line_item(result.get("line_item")), cost_usd=_dollars(result["amount"]["value"]))
    return _openai_usage(day, result)


def _openai_usage(day: date, row: Row) -> Line:
    cached = _count(row.get("input_cached_tokens"))
    return Line(day, row.get("model") or "", _count(row.get("input_tokens")), cached, _count(row.get("output_tokens")))


def _anthropic_result(day: date, result: Row) -> Line:
    model = result.get("model") or ""
    if "amount" in result:  # in cents
        _in_dollars(result.get("currency"))
        return Line(day, model, cost_usd=_dollars(result["amount"]) / 100)
    cached = _count(result.get("cache_read_input_tokens")) or 0
    written = sum(_count(value) or 0 for value in (result.get("cache_creation") or {}).values())
    uncached = _count(result["uncached_input_tokens"]) or 0
    return Line(day, model, uncached + cached + written, cached, _count(result["output_tokens"]))


# ------------------------------------------------------------------ cells


def _day(text: str) -> date:
    """Return the day of UTC that a date, a time or Unix seconds are in."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) > 8:
        return datetime.fromtimestamp(int(text), UTC).date()
    found = datetime.fromisoformat(text)
    return (found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)).date()


def _count(value: object) -> int | None:
    """Return a number of tokens, None where there is none; dashboards write some as `1000.0`."""
    if value is None or value == "":
        return None
    found = Decimal(str(value).strip())
    if not found.is_finite() or found < 0 or found != int(found):
        raise ValueError(f"{str(value)[:50]!r} is not a number of tokens")
    return int(found)


def _dollars(value: object) -> Decimal:
    found = Decimal(str(value).strip())
    if not found.is_finite() or abs(found) > 10**12:
        raise ValueError(f"{str(value)[:50]!r} is not an amount")
    return found


def _in_dollars(currency: object) -> None:
    if str(currency or "usd").lower() != "usd":
        raise ValueError(f"it is in {str(currency)[:10]}, not in USD")


def _of_line_item(text: str | None) -> str:
    """Return the model of what OpenAI bills as `gpt-5-nano, input_tokens`."""
    return (text or "").partition(",")[0].strip()


def models(lines: Sequence[Line]) -> set[str]:
    """Return the models that lines name."""
    return {line.model for line in lines if line.model}
