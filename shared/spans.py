"""The hours, days, weeks and months that a stretch of time is divided into, as a clock on a wall shows them.

A day is 23 or 25 hours long where clocks are changed in it; weeks begin on Monday.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal

Interval = Literal["hour", "day", "week", "month", "all"]


def floor(interval: Interval, moment: datetime, zone: tzinfo) -> datetime:
    """Return when the hour, day, week or month of a moment began, in UTC; the moment itself for `all`."""
    if interval == "all":
        return moment.astimezone(UTC)
    if interval == "hour":  # roll-ups are by the hours of UTC
        return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    day = moment.astimezone(zone).replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
    if interval == "week":
        day -= timedelta(days=day.weekday())
    elif interval == "month":
        day = day.replace(day=1)
    return _instant(day, zone)


def beginnings(interval: Interval, start: datetime, end: datetime, zone: tzinfo) -> list[datetime]:
    """Return when each span that has a part between `start` and `end` begins, in UTC."""
    return list(_each(interval, start, end, zone))


def _each(interval: Interval, start: datetime, end: datetime, zone: tzinfo) -> Iterator[datetime]:
    begin = floor(interval, start, zone)
    yield begin
    if interval == "all":
        return
    while (begin := _following(interval, begin, zone)) < end:
        yield begin


def _following(interval: Interval, begin: datetime, zone: tzinfo) -> datetime:
    if interval == "hour":
        return begin + timedelta(hours=1)
    if interval == "month":
        return floor("month", begin + timedelta(days=40), zone)
    day = begin.astimezone(zone).replace(tzinfo=None, hour=0) + timedelta(days=7 if interval == "week" else 1)
    return _instant(day, zone)


def _instant(wall: datetime, zone: tzinfo) -> datetime:
    return wall.replace(tzinfo=zone).astimezone(UTC)
