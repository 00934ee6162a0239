"""The simulated provider's limits: requests and tokens a minute, counted exactly, and the headers that tell of them."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

_ROUNDING = 1e-9
"""What adding up fractions may lose of a token."""


@dataclass(slots=True)
class Bucket:
    """A token bucket that gains `a_minute`, holds at most `most`, and had `level` at the time `at` (seconds)."""

    a_minute: float
    most: float
    level: float
    at: float

    def fill(self, now: float) -> None:
        """Bring the level up to now."""
        self.level = min(self.most, self.level + (now - self.at) * self.a_minute / 60)
        self.at = now

    def wait(self, amount: float) -> float:
        """Return the seconds until the level is `amount`, 0 where it is."""
        lacking = amount - self.level
        return lacking * 60 / self.a_minute if lacking > _ROUNDING else 0.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Which bucket, `requests` or `tokens`, has too little for a call, and for how many seconds."""

    lacking: str
    seconds: float


class Limits:
    """The buckets of requests and of tokens, full at the start; where a limit is 0 there is none.

    `burst` is what the bucket of requests holds (1 at least), `token_burst` that of tokens: 0 for a second's worth.
    """

    def __init__(
        self,
        *,
        rpm: float = 0.0,
        burst: float = 1.0,
        tpm: float = 0.0,
        token_burst: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        sizes = {"requests": (rpm, max(burst, 1.0)), "tokens": (tpm, token_burst or tpm / 60)}
        self._buckets = {
            name: Bucket(a_minute, most, most, clock()) for name, (a_minute, most) in sizes.items() if a_minute
        }

    def admit(self, tokens: int) -> Refusal | None:
        """Take one request and a call's `tokens`, or nothing and return why not.

        A call of more tokens than the bucket holds is never admitted.
        """
        now = self._clock()
        needs = {"requests": 1, "tokens": tokens}
        for bucket in self._buckets.values():
            bucket.fill(now)
        waits = {name: bucket.wait(needs[name]) for name, bucket in self._buckets.items()}
        longest = max(waits, key=waits.__getitem__, default="")
        if longest and waits[longest]:
            return Refusal(longest, waits[longest])
        for name, bucket in self._buckets.items():
            bucket.level -= needs[name]
        return None

    def headers(self) -> dict[str, str]:
        """Return OpenAI's headers for the levels after the last call; none where there is no limit."""
        told = {}
        for name, bucket in self._buckets.items():
            told[f"x-ratelimit-limit-{name}"] = str(math.floor(bucket.a_minute))
            told[f"x-ratelimit-remaining-{name}"] = str(math.floor(bucket.level + _ROUNDING))
            told[f"x-ratelimit-reset-{name}"] = duration(bucket.wait(bucket.most))
        return told


def duration(seconds: float) -> str:
    """Return a time as OpenAI writes it, rounded up to a millisecond: `20ms`, `1.2s`, `1m3s`."""
    milliseconds = math.ceil(1000 * seconds - 1e-6)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, left = divmod(milliseconds, 60_000)
    return f"{minutes}m{left / 1000:g}s" if minutes else f"{left / 1000:g}s"
