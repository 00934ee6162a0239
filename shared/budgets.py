"""Which jobs may spend: what a call may cost, held against what its budgets have left. Pure.

What is held for a call is what it can cost at most, so that concurrent calls cannot pass a hard budget. A request that
does not limit its answer would hold too much: it gets a share of what is not spent, at least twice what such answers
usually cost, and its answer is limited to that. Who finds too little left waits for what others hold.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

SHARE = 20
"""What is held for an answer without a limit is one part in so many of what a budget has not spent."""

USUAL_TIMES = 2
"""But at least so many times what an answer usually costs."""

UNKNOWN_OUTPUT = 32_768
"""The tokens of an answer at most, where neither the request nor the configuration nor the catalogue says it."""

OnExhausted = Literal["reject", "hold", "downgrade"]
Period = Literal["hour", "day", "week", "month", "total"]


@dataclass(slots=True)
class Window:
    """A budget's window as it stands, in nano-dollars; what is reserved changes as jobs are admitted.

    Only a hard budget refuses; a soft one lets everything in.
    """

    id: UUID
    budget: UUID
    limit: int
    spent: int
    reserved: int
    hard: bool

    @property
    def unspent(self) -> int:
        """What is not spent, be it reserved or not."""
        return self.limit - self.spent

    @property
    def left(self) -> int:
        """What is neither spent nor reserved."""
        return self.unspent - self.reserved


@dataclass(frozen=True, slots=True)
class Need:
    """What a call costs, in nano-dollars: usually, and at most.

    `limited` says that the request itself limits its answer: then nothing less than `most` can be held for it.
    `allowance` is what its job may yet spend by itself, None for any amount.
    """

    job: UUID
    usual: int
    most: int
    limited: bool
    windows: tuple[UUID, ...]
    allowance: int | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """The call may be made: so many nano-dollars are held for it."""

    nanos: int


@dataclass(frozen=True, slots=True)
class Wait:
    """What other calls hold of this window may come back."""

    window: Window


@dataclass(frozen=True, slots=True)
class Full:
    """This window has no room for the call, whatever comes back; None: what the job may spend by itself has none."""

    window: Window | None


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The call may cost more than the whole of this window."""

    window: Window


Decision = Held | Wait | Full | TooLarge


def admit(needs: Sequence[Need], windows: Mapping[UUID, Window]) -> dict[UUID, Decision]:
    """Decide over calls in their order; what is held for one counts against those that follow."""
    return {need.job: _decide(need, [windows[id_] for id_ in need.windows]) for need in needs}


def _decide(need: Need, windows: Sequence[Window]) -> Decision:
    hard = [window for window in windows if window.hard]
    wanted = last = need.most
    if not need.limited:
        share = min((window.unspent // SHARE for window in hard), default=need.most)
        wanted, last = min(need.most, max(share, USUAL_TIMES * need.usual)), need.usual
    if need.allowance is not None:
        # What the job's own limit leaves is all that it will ever have.
        if need.allowance < min(wanted, last):
            return Full(None)
        wanted = min(wanted, need.allowance)
    last = min(wanted, last)
    for window in hard:
        if window.limit and last > window.limit:
            return TooLarge(window)
        if window.left < wanted and window.reserved > 0 and window.unspent >= last:
            return Wait(window)
        # Nothing is held that could come back: an answer of the usual size may be the last that fits.
        if window.left < last:
            return Full(window)
        wanted = min(wanted, window.left)
    for window in windows:
        window.reserved += wanted
    return Held(wanted)


def longest_output(cost: Callable[[int], int | None], nanos: int, most: int) -> int:
    """Return how many output tokens, up to `most`, cost no more than so many nano-dollars; 0 where none does.

    `cost` gives the cost of an answer of so many tokens, which grows with them.
    """
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        at = cost(middle)
        if at is not None and at <= nanos:
            low = middle
        else:
            high = middle - 1
    return low


def totals(held: Iterable[tuple[int, Sequence[UUID]]]) -> dict[UUID, int]:
    """Return what is held of each window, from what is held for each call and of which windows."""
    found: dict[UUID, int] = {}
    for nanos, windows in held:
        for window in windows:
            found[window] = found.get(window, 0) + nanos
    return found
