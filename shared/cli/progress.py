"""How far many jobs are: their tally, and one live line with rate, spend and time left.

Used by `sluice submit` and by the examples. On a terminal the line is drawn in place; elsewhere a plain line is
printed every few seconds. Not here: where the results come from (`submission`).
"""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bar

PLAIN_EVERY = 5.0
RATE_WINDOW = 30.0


@dataclass(frozen=True, slots=True)
class Tally:
    """What batches add up to. `failed` is every job that ended without an answer; `cost` is in USD, None if unknown."""

    completed: int = 0
    failed: int = 0
    cost: Decimal | None = Decimal(0)
    input_tokens: int = 0
    output_tokens: int = 0

    @classmethod
    def of(cls, batches: Iterable[Mapping[str, Any]]) -> Self:
        """Add up the counts, usage and cost that the gateway gives of batches."""
        tally = cls()
        for batch in batches:
            counts, usage, cost = batch["request_counts"], batch["usage"], usd(batch["cost_usd"])
            tally = cls(
                tally.completed + counts["completed"],
                tally.failed + counts["failed"] + counts["cancelled"] + counts["expired"],
                None if tally.cost is None or cost is None else tally.cost + cost,
                tally.input_tokens + usage["input_tokens"],
                tally.output_tokens + usage["output_tokens"],
            )
        return tally

    @property
    def done(self) -> int:
        """Jobs that ended, well or badly."""
        return self.completed + self.failed


def usd(value: object) -> Decimal | None:
    """Return a decimal string as an amount, None where it is none."""
    try:
        amount = Decimal(value) if isinstance(value, str) else None
    except InvalidOperation:
        return None
    return amount if amount is not None and amount.is_finite() else None


def money(amount: Decimal | None) -> str:
    """Return USD to the cent, and finer where it is less than a dollar."""
    if amount is None:
        return "cost unknown"
    return f"${amount:,.2f}" if amount >= 1 or not amount else f"${amount:.6f}"


def duration(seconds: float) -> str:
    """Return a time span as `42 s`, `3 min 05 s` or `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def rate(samples: "deque[tuple[float, int]]") -> float:
    """Return jobs per second between the oldest and the newest (monotonic seconds, jobs done)."""
    (began, first), (now, last) = samples[0], samples[-1]
    return (last - first) / (now - began) if now > began else 0.0


class Progress:
    """The live line of one piece of work: `with Progress("Running", total=9) as progress: progress.show(tally)`."""

    def __init__(self, label: str, *, total: int, console: Console | None = None) -> None:
        self.total = total
        self._label = label
        self._console = console or Console(stderr=True, highlight=False)
        self._samples: deque[tuple[float, int]] = deque()
        self._printed_at = time.monotonic()
        self._ended = False
        self._bar = Bar(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[standing]}", markup=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(label, total=total, standing="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, tally: Tally) -> None:
        """Draw where the work stands; cheap, so call it as often as anything may have changed."""
        now = time.monotonic()
        self._samples.append((now, tally.done))
        while len(self._samples) > 2 and self._samples[1][0] < now - RATE_WINDOW:
            self._samples.popleft()
        standing = self._standing(tally)
        self._bar.update(self._task, completed=tally.done, total=self.total, standing=standing)
        ended = tally.done == self.total and not self._ended
        if self._bar.disable and (ended or now - self._printed_at >= PLAIN_EVERY):
            self._printed_at, self._ended = now, ended
            self._console.print(f"{self._label}: {standing}", markup=False, soft_wrap=True)

    def _standing(self, tally: Tally) -> str:
        speed = rate(self._samples)
        parts = [f"{tally.done:,}/{self.total:,}"]
        if tally.failed:
            parts.append(f"{tally.failed:,} failed")
        if speed:
            parts.append(f"{speed:,.1f} jobs/s")
        parts.append(money(tally.cost))
        if 0 < tally.done < self.total:
            parts.append(f"ETA {duration((self.total - tally.done) / speed)}" if speed else "ETA unknown")
        return " · ".join(parts)
