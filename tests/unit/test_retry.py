import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.retry import CAP_SECONDS, LONGEST_RETRY_AFTER, backoff, retry_after

NOW = datetime(2026, 11, 21, 5, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"x-ms-retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "Sat, 21 Nov 2026 05:00:30 GMT"}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 04:00:00 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after-ms": "x", "retry-after": "2"}, 2.0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e9"}, LONGEST_RETRY_AFTER),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


@given(st.text(max_size=60))
def test_no_header_breaks_it(value: str) -> None:
    found = retry_after({"retry-after": value}, NOW)
    assert found is None or 0 <= found <= LONGEST_RETRY_AFTER


@given(st.integers(1, 10_000), st.floats(0, 3600), st.integers())
def test_backoff_is_full_jitter_above_what_was_asked(failures: int, asked: float, seed: int) -> None:
    wait = backoff(failures, random.Random(seed), at_least=asked)
    assert asked <= wait <= asked + min(CAP_SECONDS, 2.0 ** min(failures - 1, 16))


def test_backoff_spreads_over_its_whole_range() -> None:
    waits = [backoff(4, random.Random(seed)) for seed in range(500)]
    assert min(waits) < 0.5
    assert max(waits) > 7.5
    assert 3.5 < sum(waits) / len(waits) < 4.5
