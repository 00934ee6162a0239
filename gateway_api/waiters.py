"""Who waits for a job's end: woken by the finish's announcement, not by reading a table again and again."""

import asyncio
from collections import defaultdict
from uuid import UUID

import structlog

from shared.cancellation import heed
from shared.queue import FINISHED, Queue, RedisAway, announced

log = structlog.get_logger(__name__)

_AWAY_SECONDS = 0.5


class Waiters:
    """The long polls of one process, on one subscription."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._events: dict[UUID, set[asyncio.Event]] = defaultdict(set)

    def register(self, id_: UUID) -> asyncio.Event:
        """Return an event that is set when the job ends. Register first, then read the job: so nothing is missed."""
        event = asyncio.Event()
        self._events[id_].add(event)
        return event

    def forget(self, id_: UUID, event: asyncio.Event) -> None:
        """Stop waiting."""
        waiting = self._events.get(id_)
        if waiting is not None:
            waiting.discard(event)
            if not waiting:
                del self._events[id_]

    async def listen(self) -> None:
        """Wake the waiting until cancelled. What was missed while Redis was away is made up for by waking everyone."""
        while True:
            heed()
            try:
                async with self._queue.redis.pubsub() as channel:
                    await channel.subscribe(FINISHED)
                    self._wake(list(self._events))
                    while True:
                        heed()
                        message = await channel.get_message(ignore_subscribe_messages=True, timeout=5)
                        if message:
                            self._wake(announced(message["data"]))
            except RedisAway as error:
                log.warning("waiters.not_told", waiting=len(self._events), error=str(error))
                await asyncio.sleep(_AWAY_SECONDS)
            except Exception:
                log.exception("waiters.crashed", waiting=len(self._events))
                await asyncio.sleep(_AWAY_SECONDS)

    def _wake(self, ended: list[UUID]) -> None:
        for id_ in ended:
            for event in self._events.get(id_, ()):
                event.set()
