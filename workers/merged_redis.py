"""An `ArqRedis` whose concurrent pipelines share round trips.

arq reads and counts each job in a pipeline of its own; started by the hundred, those are the hundredfold of one MULTI.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog
from arq.connections import ArqRedis
from redis.asyncio.client import Pipeline

from shared.group_commit import GroupCommit
from shared.queue import RedisAway

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 0.5


class MergedRedis(ArqRedis):
    """Passed to a worker as its `redis_pool`. A pipeline that watches keys is left as it is."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._merge: GroupCommit[list[Any], list[Any]] = GroupCommit(self._execute, most=200, lanes=2)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Return a pipeline whose commands go together with those of its neighbours."""
        return _MergedPipeline(self, transaction, shard_hint)

    async def _execute(self, stacks: Sequence[list[Any]]) -> list[list[Any]]:
        while True:
            try:
                async with Pipeline(self.connection_pool, self.response_callbacks, True, None) as pipe:
                    pipe.command_stack = [command for stack in stacks for command in stack]
                    results = iter(await pipe.execute())
                    return [[next(results) for _ in stack] for stack in stacks]
            except RedisAway as error:
                log.warning("redis.retried", error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)


class _MergedPipeline(Pipeline):
    def __init__(self, redis: MergedRedis, transaction: bool, shard_hint: str | None) -> None:
        super().__init__(redis.connection_pool, redis.response_callbacks, transaction, shard_hint)
        self._merge = redis._merge

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        if self.watching or self.explicit_transaction or not self.command_stack:
            return await super().execute(raise_on_error)
        stack, self.command_stack = self.command_stack, []
        return await self._merge.add(stack)
