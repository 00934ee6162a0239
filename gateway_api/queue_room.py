"""How many jobs a tenant may have waiting: more are refused, so that one caller's mistake does not fill the queue."""

import time
from contextlib import suppress

from shared.config import Config
from shared.errors import ApiError
from shared.queue import Queue, RedisAway

_SECONDS = 0.25
_MOST_KEPT = 10_000
_RETRY_AFTER = 5


class QueueRoom:
    """Counts a tenant's waiting jobs a few times a second; in between, what this process lets in."""

    def __init__(self, queue: Queue, config: Config) -> None:
        self._queue = queue
        self._providers = list(config.providers)
        self._most = config.tenants.defaults.queued
        self._counts: dict[str, tuple[float, int]] = {}

    async def take(self, tenant: str, jobs: int = 1) -> None:
        """Let jobs in. Raises ApiError 429 `queue_full`; where Redis is away, nobody is refused for it."""
        if self._most is None:
            return
        at, waiting = self._counts.get(tenant, (0.0, 0))
        if time.monotonic() - at > _SECONDS:
            with suppress(*RedisAway):
                at, waiting = time.monotonic(), await self._queue.waiting(tenant, self._providers)
        if waiting + jobs > self._most:
            raise ApiError(
                429,
                f"{waiting:,} jobs are waiting, of {self._most:,} that may; {jobs:,} more do not fit.",
                type="rate_limit_error",
                code="queue_full",
                retry_after=_RETRY_AFTER,
            )
        if len(self._counts) >= _MOST_KEPT:
            self._counts.clear()
        self._counts[tenant] = (at, waiting + jobs)
