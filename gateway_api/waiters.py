"""Who waits for a job: woken by the announcements of its end and of its chunks, not by reading again and again."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import structlog
from redis.asyncio.client import PubSub

from shared.cancellation import heed
from shared.queue import FINISHED, Queue, RedisAway, announced
from shared.queue.chunks import channel as chunk_channel

log = structlog.get_logger(__name__)

_AWAY_SECONDS = 0.5


class Wake(asyncio.Event):
    """Set when something happened to a job; `ended` says whether that was perhaps its end."""

    ended = False


class Waiters:
    """The long polls and streams of one process, on one subscription."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._events: dict[UUID, set[Wake]] = defaultdict(set)
        self._streams: Counter[bytes] = Counter()
        self._channel: PubSub | None = None

    def register(self, id_: UUID) -> Wake:
        """Return an event that is set when the job ends. Register first, then read the job: so nothing is missed."""
        event = Wake()
        self._events[id_].add(event)
        return event

    @asynccontextmanager
    async def following(self, id_: UUID) -> AsyncIterator[Wake]:
        """Give an event that is set when the job ends, and whenever chunks of its answer have come."""
        event, name = self.register(id_), chunk_channel(id_).encode()
        self._streams[name] += 1
        try:
            if self._streams[name] == 1 and self._channel is not None:
                with suppress(*RedisAway):  # who listens subscribes anew
                    await self._channel.subscribe(name)
            yield event
        finally:
            self.forget(id_, event)
            self._streams[name] -= 1
            if not self._streams[name]:
                del self._streams[name]
                if self._channel is not None:
                    with suppress(*RedisAway):
                        await self._channel.unsubscribe(name)

    def forget(self, id_: UUID, event: Wake) -> None:
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
                    await channel.subscribe(FINISHED, *self._streams)
                    self._channel = channel
                    self._wake(list(self._events), ended=True)
                    while True:
                        heed()
                        message = await channel.get_message(ignore_subscribe_messages=True, timeout=5)
                        if message and message["channel"] == FINISHED.encode():
                            self._wake(announced(message["data"]), ended=True)
                        elif message:
                            self._wake([UUID(hex=message["channel"].rpartition(b":")[2].decode())], ended=False)
            except RedisAway as error:
                log.warning("waiters.not_told", waiting=len(self._events), error=str(error))
                await asyncio.sleep(_AWAY_SECONDS)
            except Exception:
                log.exception("waiters.crashed", waiting=len(self._events))
                await asyncio.sleep(_AWAY_SECONDS)
            finally:
                self._channel = None

    def _wake(self, ids: list[UUID], *, ended: bool) -> None:
        for id_ in ids:
            for event in self._events.get(id_, ()):
                event.ended |= ended
                event.set()
