"""What keeps receivers of webhooks apart: how much of each lane is under way, and how much may be. No I/O.

It is the state of one process: several deliver that many times as much to a lane at once, and each finds out for itself
that a receiver fails. What they claim is theirs alone, and rates are counted over all of them.
"""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from shared.db.deliveries import CONCURRENCY, Room

WIDEST = 1_000
"""More than any endpoint's concurrency."""
MOST_KNOWN, LOOKED_AT = 10_000, 100
"""Lanes whose failures are remembered."""


@dataclass(slots=True)
class Lane:
    """A lane as this process sees it: it may give `width` at once, less the more its receiver fails."""

    tenant: str
    concurrency: int = CONCURRENCY
    width: int = WIDEST
    busy: int = 0
    unsure: bool = False
    """It gave nothing while some of its own was under way: its concurrency may have been lowered below that."""
    rests_until: float = 0.0


class Bulkheads:
    """The lanes that have something due, those from which something is under way, and those that fail.

    There are `most` places, one for each that is under way, more for what is large. Once half of them are taken, a lane
    that already has one gets no more, so that many receivers that hang leave room for others; nor does a tenant that
    has its part of twice what is free: the more are taken, by the more tenants, the fewer go to one, and some are left
    for the next, however many lanes one has.
    """

    def __init__(self, *, most: int, rng: random.Random | None = None) -> None:
        self._most = most
        self._rng = rng or random.Random()
        self._lanes: dict[str, Lane] = {}
        self._due: set[str] = set()
        self._held: Counter[str] = Counter()
        self.running = 0

    def due(self, lanes: Iterable[str]) -> None:
        """Note lanes that have something due."""
        self._due.update(lanes)

    def rooms(self, now: float, *, most: int) -> list[Room]:
        """Return up to `most` lanes that have something due and may give it, in no order, with how much they may."""
        crowded = self.running >= self._most // 2
        free = self._most - self.running
        held, found = self._held.copy(), list[Room]()
        for name in self._rng.sample(tuple(self._due), len(self._due)):
            if len(found) == most:
                break
            lane = self._lanes.get(name) or Lane(_tenant(name))
            width = min(lane.width, lane.concurrency if lane.busy else WIDEST, 1 if crowded else WIDEST)
            if lane.busy >= width or lane.rests_until > now:
                continue
            tenants = len(self._held) + (lane.tenant not in self._held)
            if crowded and lane.tenant and held[lane.tenant] * tenants > 2 * (free - len(found)):
                continue
            held[lane.tenant] += 1
            found.append(Room(name, width, lane.busy))
        return found

    def taken(self, asked: Sequence[Room], claimed: Sequence[Any], *, limit: int) -> None:
        """Note what lanes gave; one that gave less than it had room for has nothing more."""
        gave = Counter(row.lane for row in claimed)
        full = {row.lane for row in claimed if gave[row.lane] >= row.room}
        for row in claimed:
            lane = self._lanes.setdefault(row.lane, Lane(row.tenant_id))
            lane.concurrency = row.concurrency
            lane.busy += 1
            self.hold(row.tenant_id, 1)
        if len(claimed) < limit:  # else there are lanes that were not asked
            for room in asked:
                if room.lane not in full:
                    self._due.discard(room.lane)
                if room.busy and not gave[room.lane] and (known := self._lanes.get(room.lane)):
                    known.unsure = True

    def hold(self, tenant: str, places: int) -> None:
        """Note that a tenant's hold more places, or, where it is negative, fewer."""
        self.running += places
        self._held[tenant] += places
        if not self._held[tenant]:
            del self._held[tenant]

    def ended(self, name: str, *, good: bool | None, now: float, rest: float = 0.0) -> None:
        """Note that one of a lane's is no longer under way; `good` of None says nothing of the receiver.

        After a failure the lane gives half as many at once, one at least, after a success twice as many; it gives none
        for `rest` seconds.
        """
        lane = self._lanes[name]
        lane.busy -= 1
        self.hold(lane.tenant, -1)
        if lane.unsure:
            lane.unsure = False
            self._due.add(name)
        if good:
            lane.width = min(lane.width * 2, WIDEST)
        elif good is not None:
            lane.width = max(min(lane.width, lane.concurrency) // 2, 1)
        lane.rests_until = max(lane.rests_until, now + rest)
        if not lane.busy and lane.width == WIDEST and lane.rests_until <= now:
            del self._lanes[name]
        elif len(self._lanes) > MOST_KNOWN:
            self._forget_one(now)

    def _forget_one(self, now: float) -> None:
        """Forget the failures of a lane that has rested, of the oldest."""
        for name, lane in islice(self._lanes.items(), LOOKED_AT):
            if not lane.busy and lane.rests_until <= now:
                del self._lanes[name]
                return

    def patience(self, now: float, *, most: float) -> float:
        """Return the seconds until a lane that has something due has rested, `most` at most."""
        rests = (lane.rests_until - now for name in self._due if (lane := self._lanes.get(name)))
        return min((rest for rest in rests if rest > 0), default=most)


def _tenant(lane: str) -> str:
    """Return whose a lane of an address is, "" for an endpoint's: whose that is, is known while it is remembered."""
    return lane.rpartition("/")[0]
