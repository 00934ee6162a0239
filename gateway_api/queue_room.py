"""How many jobs a tenant or a key may have waiting: more are refused, so that one mistake does not fill the queue."""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from uuid import UUID

from shared.config import Config
from shared.errors import ApiError
from shared.queue import Queue, RedisAway

_SECONDS = 0.25
_PATIENCE = 2.0
_MOST_KEPT = 10_000
_RETRY_AFTER = 5

_Whose = tuple[str, UUID | None]
"""A tenant, or one of its keys."""


@dataclass(slots=True)
class _Count:
    """Someone's waiting jobs as of a moment, and what was let in lately: that may not have been among them."""

    at: float = 0.0
    waiting: int | None = 0
    lately: list[tuple[float, int]] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class QueueRoom:
    """Counts waiting jobs a few times a second; in between, what this process lets in."""

    def __init__(self, queue: Queue, config: Config) -> None:
        self._queue = queue
        self._providers = list(config.providers)
        self._most = config.tenants.defaults.queued
        self._counts: OrderedDict[_Whose, _Count] = OrderedDict()

    async def take(
        self, tenant: str, jobs: int = 1, *, own: int | None = None, key: UUID | None = None, of_key: int | None = None
    ) -> None:
        """Let jobs in. Raises ApiError 429 `queue_full`; while Redis is away, nobody is refused for it.

        `own` is how many the tenant may have waiting, None for what the configuration says of all; `of_key` is how
        many of the key's jobs may be among them.
        """
        caps: dict[_Whose, int] = {}
        if (most := self._most if own is None else own) is not None:
            caps[tenant, None] = most
        if key is not None and of_key is not None:
            caps[tenant, key] = of_key
        counts = [(await self._count(whose), whose, most) for whose, most in caps.items()]
        for count, whose, most in counts:
            _check(whose, count, jobs, most)
        for count, _, _ in counts:
            count.lately.append((time.monotonic(), jobs))

    def give_back(self, tenant: str, jobs: int = 1, *, key: UUID | None = None) -> None:
        """Take back that jobs were let in just now: they did not come."""
        for whose in {(tenant, None), (tenant, key)}:
            if whose in self._counts:
                self._counts[whose].lately.append((time.monotonic(), -jobs))

    async def _count(self, whose: _Whose) -> _Count:
        count = self._counts.setdefault(whose, _Count())
        async with count.lock:
            if time.monotonic() - count.at > _SECONDS:
                await self._look(whose, count)
        return count

    async def _look(self, whose: _Whose, count: _Count) -> None:
        begun, (tenant, key) = time.monotonic(), whose
        try:
            async with asyncio.timeout(_PATIENCE):
                count.waiting = await self._queue.waiting(tenant, self._providers, key_id=key)
        except RedisAway:
            count.waiting = None
        count.at = time.monotonic()
        # What was let in just before may be on its way to the queue still: better counted twice than not at all.
        count.lately = [one for one in count.lately if one[0] > begun - _SECONDS]
        self._counts[whose] = count  # another may have been dropped for it meanwhile
        self._counts.move_to_end(whose)
        while len(self._counts) > _MOST_KEPT:
            self._counts.popitem(last=False)


def _check(whose: _Whose, count: _Count, jobs: int, most: int) -> None:
    if count.waiting is None:
        return
    waiting = count.waiting + sum(number for _, number in count.lately)
    if waiting + jobs > most:
        raise ApiError(
            429,
            f"{waiting:,} jobs of this {'tenant' if whose[1] is None else 'key'} are waiting, of {most:,} that may; "
            f"{jobs:,} more do not fit.",
            type="rate_limit_error",
            code="queue_full",
            retry_after=_RETRY_AFTER,
        )
