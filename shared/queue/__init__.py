"""The queue in Redis: which job next, and when. It holds ids only and may be emptied at any moment.

Each provider's pool has its keys behind one prefix:

| key | type | holds |
|---|---|---|
| `sluice:P:lanes` | sorted set | the lanes of provider P, by the time (ms) each next has something to claim |
| `sluice:P:rest` | sorted set | lanes that take nothing until a time (ms): the provider asked for it |
| `sluice:P:waiting:L` | sorted set | ids waiting in lane L, by arrival (ms) less their priority's head start |
| `sluice:P:queue:L` | sorted set | what is in motion, in arq's layout: an id and the time (ms) it is due |
| `sluice:P:wake` | list | one entry for every worker to wake |
| `arq:job:ID`, `arq:retry:ID` | string | arq's own, while a job is claimed |
| `sluice:stream:ID` | stream | the chunks of a streamed answer, see `chunks.py` |
| `sluice:finished`, `sluice:cancel` | channels | ids of jobs that ended, that shall stop |

A time in the future is a lease or a deferred run; a due one is taken first. What is due is judged by Redis's
own clock; a `run_at` is as right as the clock of who wrote it. A lane is named by its upstream model.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import TypeVar, overload
from uuid import UUID

import orjson
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from shared.queue.chunks import Chunks
from shared.routing import Target

HEAD_START_MS = {"interactive": 600_000, "standard": 0, "bulk": -600_000}
"""How much earlier than it came a job of this priority counts as having come: nothing is overtaken for ever."""

MOST_AT_ONCE = 1_000
"""Jobs that one call of a script puts in their queues; Redis does nothing else meanwhile."""

FINISHED = "sluice:finished"
CANCEL = "sluice:cancel"
DELIVER_WAKE = "sluice:deliver:wake"
FILLED = "sluice:filled"
"""A key that is there as long as Redis has not been emptied."""

RedisAway = (RedisError, OSError)
"""What a call raises while Redis cannot be reached or cannot serve: restarting, full, a replica."""

_DIRECTORY = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Entry:
    """A job to stand in a queue."""

    id: UUID
    target: Target
    priority: str
    run_at: datetime


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a claim took: `(lane, id)` pairs, and the ms until a lane of this provider next has something (or None)."""

    taken: list[tuple[str, UUID]]
    next_ms: float | None


Client = TypeVar("Client", bound=Redis)


@overload
def connect(url: str) -> Redis: ...
@overload
def connect(url: str, *, client: type[Client]) -> Client: ...
def connect(url: str, *, client: type[Redis] = Redis) -> Redis:
    """Return a client for a `redis://` or `unix://` URL with a bounded pool and time-outs on everything."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=32,
        timeout=5,
        socket_timeout=10,
        socket_connect_timeout=5,
        health_check_interval=15,
        retry=Retry(NoBackoff(), 1),
        retry_on_error=[RedisConnectionError],
    )
    return client(connection_pool=pool)


def prefix(provider: str) -> str:
    """Return what the keys of a provider's pool begin with."""
    return f"sluice:{provider}:"


class Queue:
    """The scripts over one Redis client. Every method may raise `RedisAway` errors."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        # A client of its own on the same connections: what merges pipelines would mix one stream's faults with others.
        self.chunks = Chunks(Redis(connection_pool=redis.connection_pool))
        self._enqueue, self._claim, self._renew, self._move = (
            redis.register_script((_DIRECTORY / f"{name}.lua").read_text())
            for name in ("enqueue", "claim", "renew", "move")
        )

    async def enqueue(self, entries: Iterable[Entry]) -> None:
        """Put jobs in their lanes' queues and wake the pools; one that is there already stays where it is."""
        ordered = sorted(entries, key=lambda entry: entry.target.provider)
        for provider, group in groupby(ordered, key=lambda entry: entry.target.provider):
            new = []
            for entry in group:
                run_at = int(entry.run_at.timestamp() * 1000)
                new.append((entry.target.model, entry.id.hex, run_at, run_at - HEAD_START_MS[entry.priority]))
            for start in range(0, len(new), MOST_AT_ONCE):
                page = orjson.dumps(new[start : start + MOST_AT_ONCE])
                await self._enqueue(keys=[prefix(provider)], args=[page])

    async def claim(self, provider: str, *, most: int, lease: float, payload: bytes) -> Proposal:
        """Take up to `most` due jobs of a provider's lanes, each for `lease` seconds; `payload` is arq's for each."""
        taken, next_ms = await self._claim(keys=[prefix(provider)], args=[most, int(lease * 1000), payload])
        pairs = zip(taken[::2], taken[1::2], strict=True)
        return Proposal(
            [(lane.decode(), UUID(hex=id_.decode())) for lane, id_ in pairs],
            float(next_ms) if next_ms is not None else None,
        )

    async def renew(self, provider: str, held: Iterable[tuple[str, UUID]], *, lease: float) -> None:
        """Prolong the leases of `(lane, id)`s by `lease` seconds from now."""
        arguments: list[str | int] = [int(lease * 1000)]
        for lane, id_ in held:
            arguments += [lane, id_.hex]
        await self._renew(keys=[prefix(provider)], args=arguments)

    async def move(self, provider: str, moves: Sequence[tuple[str, UUID, datetime | None]]) -> None:
        """Take `(lane, id, due)`s out of motion: out of the queue (`due` None), or due again at a time."""
        arguments: list[str | int] = []
        for lane, id_, due in moves:
            arguments += [lane, id_.hex, -1 if due is None else int(due.timestamp() * 1000)]
        await self._move(keys=[prefix(provider)], args=arguments)

    async def rest(self, target: Target, *, seconds: float) -> None:
        """Have a lane take nothing for a while; a longer rest that is under way stays."""
        now, micros = await self.redis.time()
        until = now * 1000 + micros // 1000 + int(seconds * 1000)
        await self.redis.zadd(f"{prefix(target.provider)}rest", {target.model: until}, gt=True)

    async def announce(self, channel: str, wanted: Sequence[UUID]) -> None:
        """Publish ids on `FINISHED` or `CANCEL`."""
        await self.redis.publish(channel, b"".join(id_.bytes for id_ in wanted))

    async def woken(self, key: str, *, seconds: float) -> None:
        """Wait until there is a wake-up in a list, at most so many seconds."""
        # The stubs know neither fractions of seconds nor that this client is asynchronous.
        await self.redis.blpop([key], timeout=seconds)  # type: ignore[misc, arg-type]

    async def wake_deliveries(self) -> None:
        """Wake who delivers webhooks."""
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.rpush(DELIVER_WAKE, b"1")
            pipe.ltrim(DELIVER_WAKE, -16, -1)
            await pipe.execute()


def announced(message: bytes) -> list[UUID]:
    """Return the ids of a message on `FINISHED` or `CANCEL`."""
    return [UUID(bytes=message[start : start + 16]) for start in range(0, len(message) - 15, 16)]
