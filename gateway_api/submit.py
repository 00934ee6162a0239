"""Submitting: jobs that arrive together share one transaction and one enqueue; the answer follows the commit."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog

from shared.db import engine as db
from shared.db import idempotency, jobs
from shared.db.idempotency import Reserved
from shared.db.jobs import NewJob
from shared.errors import ApiError, Unavailable
from shared.group_commit import Full, GroupCommit
from shared.queue import Queue, RedisAway
from shared.queue.entries import Entry

log = structlog.get_logger(__name__)

MOST_WAITING = 10_000


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A caller's key, and the hash of what it was sent with."""

    key: str
    request_hash: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """The job that a submit stands for: a new one, or the one an earlier request with the same key made."""

    id: UUID
    replayed: bool


_Item = tuple[NewJob, IdempotencyKey | None]


def request_hash(path: str, body: bytes) -> bytes:
    """Return what two requests must share for one idempotency key to stand for both."""
    return hashlib.sha256(path.encode() + b"\0" + body).digest()


def reused() -> ApiError:
    """Return the refusal of an idempotency key that came with another request before."""
    return ApiError(422, "This Idempotency-Key was used with a different request.", code="idempotency_key_reused")


class Submitter:
    """Stores and enqueues new jobs, in groups."""

    def __init__(self, engine: db.Engine, queue: Queue) -> None:
        self._engine = engine
        self._queue = queue
        self._redis_away = False
        self._group: GroupCommit[_Item, Accepted | ApiError] = GroupCommit(
            self._flush, most=200, lanes=2, waiting=MOST_WAITING
        )

    async def submit(self, job: NewJob, key: IdempotencyKey | None) -> Accepted:
        """Store a job and return when it is on disk. Raises ApiError (422, 503)."""
        try:
            result = await self._group.add((job, key))
        except Full:
            raise Unavailable("the front door has as many jobs waiting to be stored as it may hold") from None
        if isinstance(result, ApiError):
            raise result
        return result

    async def known(self, tenant: str, key: IdempotencyKey) -> Accepted | None:
        """Return the job that an earlier request with a key made. Raises ApiError 422 for another request's key."""
        async with db.transaction(self._engine) as connection:
            holder = await idempotency.find(connection, tenant, key.key)
        if holder is not None and holder.request_hash != key.request_hash:
            raise reused()
        return None if holder is None else Accepted(holder.object_id, replayed=True)

    async def check_redis(self) -> None:
        """Raise Unavailable while Redis is known to be away: then nothing is stored either."""
        if self._redis_away:
            try:
                await self._queue.redis.ping()
            except RedisAway:
                raise Unavailable("the queue is not available") from None
            self._redis_away = False

    async def enqueue(self, entries: Sequence[Entry]) -> None:
        """Enqueue stored jobs. They are accepted already: where Redis is away, maintenance enqueues them."""
        try:
            await self._queue.enqueue(entries)
        except RedisAway as error:
            self._redis_away = True
            log.warning("jobs.not_enqueued", jobs=len(entries), error=str(error))

    async def _flush(self, items: Sequence[_Item]) -> list[Accepted | ApiError]:
        await self.check_redis()
        keyed = any(key is not None for _, key in items)
        results, fresh = await db.run(self._engine, lambda connection: _store(connection, items), alone=not keyed)
        await self.enqueue([Entry.of(job) for job in fresh])
        return results


async def _store(connection: db.Connection, items: Sequence[_Item]) -> tuple[list[Accepted | ApiError], list[NewJob]]:
    wanted: dict[tuple[str, str], Reserved] = {}
    for job, key in items:
        if key is not None:
            wanted.setdefault((job.tenant_id, key.key), Reserved(key.request_hash, job.id))
    holders: Mapping[tuple[str, str], Reserved] = await idempotency.reserve(connection, wanted) if wanted else {}
    results: list[Accepted | ApiError] = []
    fresh = []
    for job, key in items:
        holder = holders[job.tenant_id, key.key] if key is not None else None
        if holder is None or holder.object_id == job.id:
            fresh.append(job)
            results.append(Accepted(job.id, replayed=False))
        elif key is not None and holder.request_hash == key.request_hash:
            results.append(Accepted(holder.object_id, replayed=True))
        else:
            results.append(reused())
    if fresh:
        await jobs.insert(connection, fresh)
    return results, fresh
