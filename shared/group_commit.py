"""Group commit without a timer: what arrived during the last flush goes with the next one.

Alone, an item is flushed at once; under load, many share one round trip and one fsync. The queue is bounded: beyond it
`Full` is raised, so that an overloaded store pushes back instead of filling memory.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Full(Exception):
    """More items are waiting than the group commit may hold."""


class GroupCommit(Generic[T, R]):
    """Collects items and hands them to `flush` in groups.

    `flush` takes up to `most` items and returns one result for each, in order; where it raises, every item of the group
    gets the exception. At most `lanes` flushes are under way at a time; at most `waiting` items wait (else `Full`).
    """

    def __init__(
        self,
        flush: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        most: int = 200,
        lanes: int = 2,
        waiting: int = 20_000,
    ) -> None:
        self._flush = flush
        self._most = most
        self._idle = lanes
        self._limit = waiting
        self._queue: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def add(self, item: T) -> R:
        """Have `item` flushed with its neighbours and return its result; raises what `flush` raised, or `Full`."""
        if len(self._queue) >= self._limit:
            raise Full
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.append((item, future))
        if self._idle:
            self._idle -= 1
            task = asyncio.create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _run(self) -> None:
        try:
            while self._queue:
                group = [self._queue.popleft() for _ in range(min(self._most, len(self._queue)))]
                try:
                    results = await self._flush([item for item, _ in group])
                    for (_, future), result in zip(group, results, strict=True):
                        if not future.done():
                            future.set_result(result)
                except Exception as error:
                    for _, future in group:
                        if not future.done():
                            future.set_exception(error)
        finally:
            self._idle += 1
