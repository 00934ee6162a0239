"""A quantile of buckets is within its stated error of the exact one, whatever the times."""

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from shared.quantiles import ERROR, LAST, WIDTH, bucket_of, quantiles

TIMES = st.lists(st.floats(1, 5e8), min_size=1, max_size=300)


@given(TIMES, st.floats(0, 1))
def test_a_quantile_is_within_its_error_of_the_exact_one(times: list[float], share: float) -> None:
    (found,) = quantiles(Counter(map(bucket_of, times)), [share])
    exact = sorted(times)[max(1, math.ceil(share * len(times))) - 1]
    assert found is not None
    assert abs(found - exact) <= ERROR * exact


@given(TIMES)
def test_quantiles_rise_with_their_shares(times: list[float]) -> None:
    found = quantiles(Counter(map(bucket_of, times)), [0.0, 0.5, 0.95, 0.99, 1.0])
    assert found == sorted(one for one in found if one is not None)


@given(st.floats(0, 1e12))
def test_a_time_is_in_its_bucket(ms: float) -> None:
    bucket = bucket_of(ms)
    assert 0 <= bucket <= LAST
    assert bucket == LAST or WIDTH**bucket * 0.999 <= max(ms, 1) <= WIDTH ** (bucket + 1) * 1.001


def test_of_nothing_there_is_no_quantile() -> None:
    assert quantiles({}, [0.5, 0.99]) == quantiles({3: 0}, [0.5, 0.99]) == [None, None]


def test_one_of_a_hundred_is_beyond_the_99th() -> None:
    assert quantiles({0: 99, 40: 1}, [0.99, 1.0]) == [1.118, 8411.0]
