"""What the simulated provider tells at `GET /stats`: how many calls came, how they ended, and when it was dead."""

import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import Literal

How = Literal["reset", "503", "hang"]


@dataclass(slots=True)
class Count:
    """Calls made with one key, or with all: `refused` by the limits, `tokens` used by those that were not."""

    calls: int = 0
    by_status: Counter[int] = field(default_factory=Counter)
    refused: int = 0
    tokens: int = 0

    def shown(self) -> dict[str, object]:
        """Return it as JSON values."""
        return {
            "calls": self.calls,
            "answered": self.by_status.total(),
            "by_status": {str(status): count for status, count in self.by_status.items()},
            "refused": self.refused,
            "tokens": self.tokens,
        }


@dataclass(slots=True)
class Death:
    """A time in which every call fails: from when to when (seconds since 1970), and how.

    `calls` is how many came meanwhile, `answered_again` when the first one after it was answered with 200.
    """

    began: float
    ends: float
    how: How
    calls: int = 0
    answered_again: float | None = None


@dataclass(slots=True)
class Tally:
    """Everything counted since the start. Times are in seconds since 1970, None where there was none."""

    all: Count = field(default_factory=Count)
    keys: defaultdict[str, Count] = field(default_factory=lambda: defaultdict(Count))
    deaths: list[Death] = field(default_factory=list)
    in_flight: int = 0
    peak_in_flight: int = 0
    disconnected: int = 0
    first_received: float | None = None
    last_received: float | None = None
    first_answered: float | None = None
    last_answered: float | None = None

    def received(self, key: str) -> None:
        """Count a call that came in; `key` is what it is authorized by."""
        now = time.time()
        self.first_received = self.first_received or now
        self.last_received = now
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        for count in (self.all, self.keys[key]):
            count.calls += 1

    def judged(self, key: str, *, refused: bool, tokens: int) -> None:
        """Count what the limits said of a call."""
        for count in (self.all, self.keys[key]):
            count.refused += refused
            count.tokens += 0 if refused else tokens

    def answered(self, key: str, status: int) -> None:
        """Count an answer that goes out."""
        for count in (self.all, self.keys[key]):
            count.by_status[status] += 1
        if status == 200:
            now = time.time()
            self.first_answered = self.first_answered or now
            self.last_answered = now
            if self.deaths and self.deaths[-1].answered_again is None:
                self.deaths[-1].answered_again = now

    def die(self, seconds: float, how: How) -> None:
        """Be dead from now on for so many seconds, 0 to live again; a death under way ends."""
        now = time.time()
        if death := self.dead():
            death.ends = now
        if seconds:
            self.deaths.append(Death(now, now + seconds, how))

    def dead(self) -> Death | None:
        """Return the death that is now."""
        return self.deaths[-1] if self.deaths and time.time() < self.deaths[-1].ends else None

    def shown(self) -> dict[str, object]:
        """Return it as JSON values."""
        named = ("in_flight", "peak_in_flight", "disconnected")
        times = ("first_received", "last_received", "first_answered", "last_answered")
        return {
            **self.all.shown(),
            **{name: getattr(self, name) for name in (*named, *times)},
            "deaths": [asdict(death) for death in self.deaths],
            "keys": {key: count.shown() for key, count in self.keys.items()},
        }
