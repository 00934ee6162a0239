"""Quantiles of times that were counted in buckets, each a quarter wider than the one before.

A bucket holds the times from 1.25ᵇ ms up to 1.25ᵇ⁺¹ ms; what is shorter than a millisecond is in the first, what is
longer than six days in the last. A quantile is the middle (of the logarithm) of the bucket that holds the exact one, by
nearest rank: it is off by at most a factor of √1.25, which is 12 % with its rounding to four digits. No interpolation
promises as much, since nobody knows where in its bucket a time was.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate

WIDTH = 1.25
LAST = 90
ERROR = 0.12
"""How far a quantile may be from the exact one, as a part of it, for times from 1 ms to six days."""


def bucket_of(ms: float) -> int:
    """Return the bucket that a time is counted in."""
    return min(math.floor(math.log(max(ms, 1.0)) / math.log(WIDTH)), LAST)


_MIDDLES = tuple(float(f"{WIDTH ** (bucket + 0.5):.4g}") for bucket in range(LAST + 1))


def quantiles(counts: Mapping[int, int], shares: Sequence[float]) -> list[float | None]:
    """Return for each share of all the time in ms that so many are not longer than, None where nothing was counted.

    `counts` says how many are in each bucket.
    """
    buckets = sorted(counts)
    up_to = list(accumulate(counts[bucket] for bucket in buckets))
    if not up_to or not up_to[-1]:
        return [None] * len(shares)
    ranks = (max(1, math.ceil(share * up_to[-1])) for share in shares)
    return [_MIDDLES[buckets[bisect_left(up_to, rank)]] for rank in ranks]
