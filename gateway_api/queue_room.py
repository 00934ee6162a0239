"""How many jobs a tenant may have waiting: more are refused, so that one caller's mistake does not fill the queue."""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from shared.config import Config
from shared.errors import ApiError
from shared.queue import Queue, RedisAway

_SECONDS = 0.25
_MOST_KEPT = 10_000
_RETRY_AFTER = 5


@dataclass(slots=True)
class _Count:
    """A tenant's waiting jobs as of a moment, and what was let in lately: that may not have been among them."""

    at: float = 0.0
    waiting: int | None = 0
    lately: list[tuple[float, int]] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class QueueRoom:
    """Counts a tenant's waiting jobs a few times a second; in between, what this process lets in."""

    def __init__(self, queue: Queue, config: Config) -> None:
        self._queue = queue
        self._providers = list(config.providers)
        self._most = config.tenants.defaults.queued
        self._counts: OrderedDict[str, _Count] = OrderedDict()

    async def take(self, tenant: str, jobs: int = 1) -> None:
        """Let jobs in. Raises ApiError 429 `queue_full`; while Redis is away, nobody is refused for it."""
        if self._most is None:
            return
        count = self._counts.setdefault(tenant, _Count())
        async with count.lock:
            if time.monotonic() - count.at > _SECONDS:
                await self._look(tenant, count)
        if count.waiting is None:
            return
        waiting = count.waiting + sum(number for _, number in count.lately)
        if waiting + jobs > self._most:
            raise ApiError(
                429,
                f"{waiting:,} jobs are waiting, of {self._most:,} that may; {jobs:,} more do not fit.",
                type="rate_limit_error",
                code="queue_full",
                retry_after=_RETRY_AFTER,
            )
        count.lately.append((time.monotonic(), jobs))

    async def _look(self, tenant: str, count: _Count) -> None:
        begun = time.monotonic()
        try:
            count.waiting = await self._queue.waiting(tenant, self._providers)
        except RedisAway:
            count.waiting = None
        count.at = time.monotonic()
        # What was let in just before may be on its way to the queue still: better counted twice than not at all.
        count.lately = [one for one in count.lately if one[0] > begun - _SECONDS]
        self._counts.move_to_end(tenant)
        while len(self._counts) > _MOST_KEPT:
            self._counts.popitem(last=False)
