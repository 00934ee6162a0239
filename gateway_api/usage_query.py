"""Reading what `GET /v1/usage` is asked: every fault of the query in one 400."""

import base64
import binascii
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any, get_args
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
from aiohttp import web

from gateway_api import reading
from gateway_api.access import Caller
from shared import ids, spans
from shared.db.usage import COLUMNS, EVERYTHING, Asked
from shared.errors import Fault
from shared.spans import Interval
from shared.usage_report import FIELDS

DAYS = 7
"""The days that are shown where the query does not say: today and those before it."""

MOST_DAYS = {"hour": 31, "day": 3660, "week": 3660, "month": 3660, "all": 3660}
MOST_ROWS = 10_000
ROWS = 1000

_FILTERS = ("team_id", "key_id", "user", "model", "provider", "tag")
_NAMES = ("group_by", "interval", "start", "end", "timezone", *_FILTERS, "format", "after", "limit")
_LONGEST = 600


@dataclass(frozen=True, slots=True)
class Query:
    """What was asked: of the roll-ups (one row more than are shown, to know of it), and how it is to be shown."""

    asked: Asked
    limit: int
    csv: bool


class _Reader:
    """The parameters of one query, and what is wrong with them so far."""

    def __init__(self, request: web.Request) -> None:
        self.faults: list[Fault] = []
        self._given = request.query
        for name in dict.fromkeys(self._given):
            if name not in _NAMES:
                self.fault(name[:100], f"is not a parameter here; there are: {', '.join(_NAMES)}")
            elif name != "group_by" and len(self._given.getall(name)) > 1:
                self.fault(name, "is there twice")
            elif any("\0" in value or len(value) > _LONGEST for value in self._given.getall(name)):
                self.fault(name, f"must be at most {_LONGEST} characters, none of them NUL")

    def fault(self, name: str, message: str) -> None:
        self.faults.append(Fault(name, message))

    def text(self, name: str) -> str | None:
        return self._given.get(name)

    def one_of(self, name: str, known: Sequence[str], default: str) -> str:
        value = self._given.get(name, default)
        if value not in known:
            self.fault(name, f"must be one of {', '.join(known)}")
        return value if value in known else default

    def groups(self) -> tuple[str, ...]:
        named = [one for value in self._given.getall("group_by", []) for one in value.split(",") if one]
        if unknown := [one for one in named if one not in FIELDS]:
            self.fault("group_by", f"{unknown[0][:100]!r} is not one of {', '.join(FIELDS)}")
        return tuple(dict.fromkeys(one for one in named if one in FIELDS))

    def read(self, name: str, read: Callable[[str], Any], message: str) -> Any:
        """Return a parameter as `read` has it, None where it is absent or `read` raises ValueError, a fault then."""
        value = self._given.get(name)
        if value is None:
            return None
        try:
            return read(value)
        except (ValueError, OverflowError):
            self.fault(name, message)
            return None


def read(request: web.Request, caller: Caller, tags: Sequence[str]) -> Query:
    """Return what a request asks; `tags` are the metadata keys that usage is kept by. Raises ApiError 400."""
    reader = _Reader(request)
    groups = reader.groups()
    interval: Interval = reader.one_of("interval", get_args(Interval), "day")  # type: ignore[assignment]
    zone = reader.read("timezone", _zone, "is not a time zone such as Europe/Berlin") or ZoneInfo("UTC")
    start, end = _range(reader, interval, zone)
    label, within = _label(reader, groups, tags)
    only = {
        "team_id": reader.read("team_id", lambda text: _id("team", text), "is not the id of a team"),
        "key_id": reader.read("key_id", lambda text: _id("key", text), "is not the id of a key"),
        "model": reader.text("model"),
        "provider": reader.text("provider"),
    }
    csv = reader.one_of("format", ("json", "csv"), _preferred(request)) == "csv"
    after = reader.read("after", lambda text: _cursor(text, groups), "is not the last_id of such a list")
    limit = reader.read("limit", _limit, f"must be a whole number from 1 to {MOST_ROWS}")
    limit = limit or (MOST_ROWS if csv else ROWS)
    if reader.faults:
        raise reading.refusal(reader.faults)
    everywhere = caller.everywhere and "tenant" in groups
    bounds = None if interval == "hour" else spans.beginnings(interval, start, end, zone)
    asked = Asked(
        tenant_id=None if everywhere else caller.tenant,
        start=start,
        end=end,
        bounds=bounds,
        groups=groups,
        label=label,
        within=within,
        only={column: value for column, value in only.items() if value is not None},
        after=_behind(after, bounds),
        limit=limit + 1,
    )
    return Query(asked, limit, csv)


def begins(row: Any, asked: Asked) -> datetime:
    """Return when a row's span begins."""
    found: datetime = row.span if asked.bounds is None else asked.bounds[row.span - 1]
    return found


def cursor(row: Any, asked: Asked) -> str:
    """Return what leads to the rows behind one, as `after`."""
    values = [begins(row, asked), *(getattr(row, COLUMNS[group]) for group in asked.groups)]
    return base64.urlsafe_b64encode(orjson.dumps(values, default=str)).decode().rstrip("=")


def _cursor(text: str, groups: Sequence[str]) -> list[Any]:
    try:
        values = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except binascii.Error:
        raise ValueError from None
    if not isinstance(values, list) or len(values) != 1 + len(groups):
        raise ValueError
    if not all(isinstance(one, str) and "\0" not in one for one in values):
        raise ValueError
    begun, *rest = values
    found = [UUID(one) if group in ("team", "key") else one for group, one in zip(groups, rest, strict=True)]
    return [_moment(begun, UTC), *found]


def _behind(after: list[Any] | None, bounds: Sequence[datetime] | None) -> list[Any] | None:
    """Return a cursor with the number of its span, where spans have numbers."""
    if after is None or bounds is None:
        return after
    return [1 if len(bounds) == 1 else bisect_right(bounds, after[0]), *after[1:]]


def _range(reader: _Reader, interval: Interval, zone: ZoneInfo) -> tuple[datetime, datetime]:
    message = "must be a date, or a date and time in RFC 3339 with its offset"
    now = datetime.now(UTC)
    start = reader.read("start", lambda text: _moment(text, zone), message)
    end = reader.read("end", lambda text: _moment(text, zone), message) or now
    if start is None:
        start = spans.floor("day", max(end, _EARLIEST) - timedelta(days=DAYS - 1), zone)
    most = MOST_DAYS[interval]
    if start >= end:
        reader.fault("start", "must be before `end`")
    elif end - start > timedelta(days=most, hours=1):
        coarser = "; take interval=day for more" if interval == "hour" else ""
        reader.fault("start", f"must be at most {most} days before `end` with interval={interval}{coarser}")
    return start, end


_EARLIEST = datetime(1970, 2, 1, tzinfo=UTC)
_LATEST = datetime(9999, 1, 1, tzinfo=UTC)


def _moment(text: str, zone: tzinfo) -> datetime:
    if len(text) == len("2026-11-21"):
        found = datetime.combine(date.fromisoformat(text), time(), zone)
    else:
        found = datetime.fromisoformat(text[:11] + text[11:].replace(" ", "+"))  # a plus that was not escaped
    if found.tzinfo is None or not _EARLIEST <= found.astimezone(UTC) <= _LATEST:
        raise ValueError
    return found.astimezone(UTC)


def _zone(text: str) -> ZoneInfo:
    try:
        return ZoneInfo(text)
    except (LookupError, OSError):  # a name that is a directory's
        raise ValueError from None


def _id(prefix: ids.Prefix, text: str) -> UUID:
    found = ids.parse(prefix, text)
    if found is None:
        raise ValueError
    return found


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MOST_ROWS or len(text) > 9:
        raise ValueError
    return int(text)


def _label(reader: _Reader, groups: Sequence[str], tags: Sequence[str]) -> tuple[str, bool]:
    """Return the label of the rows that are asked for, and whether it is only how labels begin."""
    user, tag = reader.text("user"), reader.text("tag")
    by_user, by_tag = user is not None or "user" in groups, tag is not None or "tag" in groups
    if by_user and by_tag:
        reader.fault("group_by", "usage is kept by end user and by tag, not by both at once: ask for one of them")
    if by_tag and not tags:
        reader.fault("tag", "usage is kept by no tag: name keys of metadata in the configuration, under usage.tags")
    elif tag is not None and tag.partition("=")[0] not in tags:
        reader.fault("tag", f"must be k=v or k, where k is one of {', '.join(tags)}")
    if by_user:
        return ("user:", True) if user is None else (f"user:{user}", False)
    if tag is not None:
        return (f"tag:{tag}", False) if "=" in tag else (f"tag:{tag}=", True)
    return ("tag:", True) if by_tag else (EVERYTHING, False)


def _preferred(request: web.Request) -> str:
    kinds = [one.partition(";")[0].strip() for one in request.headers.get("Accept", "").lower().split(",")]
    return "csv" if kinds[0] == "text/csv" else "json"
