from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.spans import beginnings, floor

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("interval", "start", "end", "begin"),
    [
        ("all", "2026-03-28T12:30", "2026-03-30", ["2026-03-28T12:30"]),
        ("hour", "2026-03-28T12:30", "2026-03-28T14:00", ["2026-03-28T12:00", "2026-03-28T13:00"]),
        # The night of 29 March loses an hour, that of 25 October has one more.
        ("day", "2026-03-28T12:30", "2026-03-30T12:00", ["2026-03-27T23:00", "2026-03-28T23:00", "2026-03-29T22:00"]),
        ("day", "2026-10-24T22:00", "2026-10-26T00:00", ["2026-10-24T22:00", "2026-10-25T23:00"]),
        ("week", "2026-03-28T12:30", "2026-03-30T12:00", ["2026-03-22T23:00", "2026-03-29T22:00"]),
        ("month", "2026-03-28T12:30", "2026-05-30", ["2026-02-28T23:00", "2026-03-31T22:00", "2026-04-30T22:00"]),
    ],
)
def test_where_spans_begin(interval: Any, start: str, end: str, begin: list[str]) -> None:
    assert beginnings(interval, at(start), at(end), BERLIN) == [at(one) for one in begin]


@given(
    st.sampled_from(["day", "week", "month"]),
    st.integers(630_720_000, 2_114_380_800).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    st.integers(1, 100),
    st.sampled_from(sorted(available_timezones())),
)
def test_spans_cover_their_time_without_a_gap(interval: Any, start: datetime, days: int, name: str) -> None:
    zone, end = ZoneInfo(name), start + timedelta(days=days)
    found = beginnings(interval, start, end, zone)
    assert found[0] <= start < end
    assert found == sorted(set(found))
    assert all(floor(interval, one, zone) == one for one in found)
    lengths = [after - before for before, after in pairwise(found)]
    longest = {"day": 3, "week": 9, "month": 32}[interval]  # a calendar has left out a day
    assert all(timedelta(hours=20) <= one <= timedelta(days=longest) for one in lengths)
    assert timedelta(0) < end - found[-1] <= timedelta(days=longest)
