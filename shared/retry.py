"""When to try again: full-jitter backoff, and the three ways a provider says `Retry-After`."""

import math
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

BASE_SECONDS = 1.0
CAP_SECONDS = 60.0
LONGEST_RETRY_AFTER = 3600.0


def backoff(failures: int, rng: random.Random, *, at_least: float = 0.0) -> float:
    """Return the seconds to wait before the next attempt after `failures` failed ones (1 or more).

    Full jitter: uniform in [0, min(cap, base * 2**(failures-1))]
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). A provider's Retry-After goes in as
    `at_least` and the jitter comes on top of it, so that those who were told the same second do not return as a herd.
    """
    ceiling = min(CAP_SECONDS, BASE_SECONDS * 2 ** min(failures - 1, 16))
    return at_least + rng.uniform(0.0, ceiling)


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds a provider asks to wait, or None.

    `headers` has lower-case names. Reads `retry-after-ms`, `x-ms-retry-after-ms`, then `retry-after` as seconds or as
    an HTTP date (RFC 9110 §10.2.3); nonsense counts as absent, and no answer exceeds an hour.
    """
    for name, unit in (("retry-after-ms", 0.001), ("x-ms-retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            seconds = float(text) * unit
        except ValueError:
            try:
                seconds = (parsedate_to_datetime(text) - (now or datetime.now(UTC))).total_seconds()
            except (ValueError, TypeError, OverflowError):
                continue
        if math.isfinite(seconds) and seconds >= 0:
            return min(seconds, LONGEST_RETRY_AFTER)
    return None
