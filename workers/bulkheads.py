"""What keeps receivers of webhooks apart: how much of each lane is under way, and how much may be. No I/O.

It is the state of one process: several deliver that many times as much to a lane at once, and each finds out for itself
that a receiver fails. What they claim is theirs alone, and rates are counted over all of them.
"""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from shared.db.deliveries import CONCURRENCY, Room

WIDEST = 1_000
"""More than any endpoint's concurrency."""
MOST_KNOWN = 10_000
"""Lanes whose failures are remembered."""


@dataclass(slots=True)
class Lane:
    """A lane as this process sees it: it may give `width` at once, less the more its receiver fails."""

    concurrency: int = CONCURRENCY
    width: int = WIDEST
    busy: int = 0
    rests_until: float = 0.0


class Bulkheads:
    """The lanes that have something due, those from which something is under way, and those that fail.

    At most `most` are under way; once it is half as many, a lane that already has one gets no more, so that many
    receivers that hang leave room for others.
    """

    def __init__(self, *, most: int, rng: random.Random | None = None) -> None:
        self._most = most
        self._rng = rng or random.Random()
        self._lanes: dict[str, Lane] = {}
        self._due: set[str] = set()
        self.running = 0

    def due(self, lanes: Iterable[str]) -> None:
        """Note lanes that have something due."""
        self._due.update(lanes)

    def rooms(self, now: float, *, most: int) -> list[Room]:
        """Return up to `most` lanes that have something due and may give it, in no order, with how much they may."""
        crowded = self.running >= self._most // 2
        found = []
        for name in self._due:
            lane = self._lanes.get(name) or Lane()
            width = min(lane.width, lane.concurrency if lane.busy else WIDEST, 1 if crowded else WIDEST)
            if lane.busy < width and lane.rests_until <= now:
                found.append(Room(name, width, lane.busy))
        return self._rng.sample(found, min(most, len(found)))

    def taken(self, asked: Sequence[Room], claimed: Sequence[Any], *, limit: int) -> None:
        """Note what lanes gave; one that gave less than it had room for has nothing more."""
        gave = Counter(row.lane for row in claimed)
        full = {row.lane for row in claimed if gave[row.lane] >= row.room}
        for row in claimed:
            lane = self._lanes.setdefault(row.lane, Lane())
            lane.concurrency = row.concurrency
            lane.busy += 1
        self.running += len(claimed)
        if len(claimed) < limit:  # else there are lanes that were not asked
            self._due.difference_update(room.lane for room in asked if room.lane not in full)

    def ended(self, name: str, *, good: bool | None, now: float, rest: float = 0.0) -> None:
        """Note that one of a lane's is no longer under way; `good` of None says nothing of the receiver.

        After a failure the lane gives half as many at once, one at least, after a success twice as many; it gives none
        for `rest` seconds.
        """
        lane = self._lanes[name]
        lane.busy -= 1
        self.running -= 1
        if good:
            lane.width = min(lane.width * 2, WIDEST)
        elif good is not None:
            lane.width = max(min(lane.width, lane.concurrency) // 2, 1)
        lane.rests_until = max(lane.rests_until, now + rest)
        if not lane.busy and (len(self._lanes) > MOST_KNOWN or (lane.width == WIDEST and lane.rests_until <= now)):
            del self._lanes[name]

    def patience(self, now: float, *, most: float) -> float:
        """Return the seconds until a lane that has something due has rested, `most` at most."""
        rests = (lane.rests_until - now for name in self._due if (lane := self._lanes.get(name)))
        return min((rest for rest in rests if rest > 0), default=most)
