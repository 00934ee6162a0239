"""The queue in Redis: which job next, and when. It holds ids only and may be emptied at any moment.

Each provider's pool has its keys behind one prefix:

| key | type | holds |
|---|---|---|
| `sluice:P:lanes` | sorted set | the lanes of provider P, by the time (ms) each next has something to claim |
| `sluice:P:waiting:L:T` | sorted set | ids of tenant T waiting in lane L, by arrival (ms) less their head start |
| `sluice:P:turns:L` | sorted set | the tenants that wait in lane L, by whose turn it is |
| `sluice:P:tags:L`, `past:L`, `clock:L` | | virtual time: of who waits, of who has left, of the lane |
| `sluice:P:facts:L` | hash | what a claim must know of each job: tokens, weight, order, tenant |
| `sluice:P:bucket:L:K` | hash | what key K may still ask of the lane's model |
| `sluice:P:flight:L:K` | sorted set | ids that are being called with key K, where that is limited |
| `sluice:P:pace:L` | hash | how many jobs were taken in each of the last spans of ten seconds |
| `sluice:P:held:L` | hash | the job that holds its place until it is admitted, and since when |
| `sluice:P:queue:L` | sorted set | what is in motion, in arq's layout: an id and the time (ms) it is due |
| `sluice:P:wake` | list | one entry for every worker to wake |
| `arq:job:ID`, `arq:retry:ID` | string | arq's own, while a job is claimed |
| `sluice:stream:ID` | stream | the chunks of a streamed answer, see `chunks.py` |
| `sluice:finished`, `sluice:cancel` | channels | ids of jobs that ended, that shall stop |

A time in the future is a lease or a deferred run; a due one is taken first. What is due is judged by Redis's
own clock; a `run_at` is as right as the clock of who wrote it. A lane is named by its upstream model.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar, overload
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

WEIGHTS = {"interactive": 4, "standard": 2, "bulk": 1}
"""How many tokens of this priority a tenant gets for one of another tenant's bulk work."""

MOST_AT_ONCE = 1_000
"""Jobs that one call of a script puts in their queues; Redis does nothing else meanwhile."""

UNLIMITED = b'{"*":[["",1,{}]]}'
"""One key without limits, for every lane."""

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
    tenant: str
    input_tokens: int = 0
    output_tokens: int = 0

    @classmethod
    def of(cls, row: Any) -> Self:
        """Return the entry of a job, given as a row or a new one."""
        target = Target(row.provider, row.upstream_model)
        return cls(row.id, target, row.priority, row.run_at, row.tenant_id, row.input_estimate, row.output_estimate)


class Taken(NamedTuple):
    """A job that a claim took: the key to call with, and the tokens that were drawn from its bucket for it."""

    lane: str
    id: UUID
    key: str
    input_tokens: int
    output_tokens: int


class Move(NamedTuple):
    """A job that leaves motion: for good, or to be `due` again.

    `key` names what it was called with, "" where it was not; `…_left` are the tokens drawn for the call and not used.
    """

    lane: str
    id: UUID
    due: datetime | None
    key: str = ""
    input_left: int = 0
    output_left: int = 0


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a claim took, and the ms until a lane of this provider next has something (or None)."""

    taken: list[Taken]
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

    def __init__(self, redis: Redis, *, clock: Callable[[], float] | None = None) -> None:
        """Work over a client; without a `clock` (ms since 1970) it is Redis's own that counts."""
        self.redis = redis
        self._clock = clock
        # A client of its own on the same connections: what merges pipelines would mix one stream's faults with others.
        self.chunks = Chunks(Redis(connection_pool=redis.connection_pool))
        shared = "".join((_DIRECTORY / f"{name}.lua").read_text() for name in ("turns", "buckets"))
        self._enqueue, self._claim, self._renew, self._move, self._rest, self._place = (
            redis.register_script(shared + (_DIRECTORY / f"{name}.lua").read_text())
            for name in ("enqueue", "claim", "renew", "move", "rest", "place")
        )

    def _now(self) -> str:
        return "" if self._clock is None else f"{self._clock():.3f}"

    async def enqueue(self, entries: Iterable[Entry]) -> None:
        """Put jobs in their lanes' queues and wake the pools; one that is there already stays where it is."""
        ordered = sorted(entries, key=lambda entry: entry.target.provider)
        for provider, group in groupby(ordered, key=lambda entry: entry.target.provider):
            new = []
            for entry in group:
                run_at = int(entry.run_at.timestamp() * 1000)
                order = run_at - HEAD_START_MS[entry.priority]
                new.append(
                    (
                        entry.target.model, entry.id.hex, run_at, order, entry.tenant,
                        entry.input_tokens, entry.output_tokens, WEIGHTS[entry.priority],
                    )
                )  # fmt: skip
            for start in range(0, len(new), MOST_AT_ONCE):
                page = orjson.dumps(new[start : start + MOST_AT_ONCE])
                await self._enqueue(keys=[prefix(provider)], args=[self._now(), page])

    async def claim(
        self, provider: str, *, most: int, lease: float, payload: bytes, limits: bytes = UNLIMITED
    ) -> Proposal:
        """Take up to `most` due jobs of a provider's lanes, as far as the limits of its deployments admit.

        Each is taken for `lease` seconds; `payload` is arq's for each. `limits` is JSON, see `claim.lua`.
        """
        taken, next_ms = await self._claim(
            keys=[prefix(provider)], args=[self._now(), most, int(lease * 1000), payload, limits]
        )
        rows = zip(*(taken[column::5] for column in range(5)), strict=True)
        return Proposal(
            [
                Taken(lane.decode(), UUID(hex=id_.decode()), key.decode(), int(input_), int(output))
                for lane, id_, key, input_, output in rows
            ],
            float(next_ms) if next_ms is not None else None,
        )

    async def renew(self, provider: str, held: Iterable[tuple[str, UUID, str]], *, lease: float) -> None:
        """Prolong the leases of `(lane, id, key)`s by `lease` seconds from now."""
        arguments: list[str | int] = [self._now(), int(lease * 1000)]
        for lane, id_, key in held:
            arguments += [lane, id_.hex, key]
        await self._renew(keys=[prefix(provider)], args=arguments)

    async def move(self, provider: str, moves: Iterable[Move]) -> None:
        """Take jobs out of motion."""
        arguments: list[str | int] = [self._now()]
        for one in moves:
            due = -1 if one.due is None else int(one.due.timestamp() * 1000)
            arguments += [one.lane, one.id.hex, due, one.key, one.input_left, one.output_left]
        await self._move(keys=[prefix(provider)], args=arguments)

    async def rest(self, target: Target, key: str, *, seconds: float) -> None:
        """Have a deployment take nothing for a while, and then less than before; a longer rest under way stays."""
        await self._rest(keys=[prefix(target.provider)], args=[self._now(), target.model, key, int(seconds * 1000)])

    async def place(self, target: Target, id_: UUID) -> tuple[int, float | None] | None:
        """Return how many jobs go before a waiting one, and the seconds until its turn (None where nothing moves)."""
        found = await self._place(keys=[prefix(target.provider)], args=[self._now(), target.model, id_.hex])
        if found is None:
            return None
        before, pace = int(found[0]), float(found[1])
        return before, (before + 1) / pace if pace else None

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
