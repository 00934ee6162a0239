"""Maintenance: brings Redis back in line with Postgres, and ends what nobody else would.

It runs on a plain loop and not on arq's cron, because it must go on while Redis is away or has just been emptied. Any
number of these processes may run: rows are locked with SKIP LOCKED, and enqueueing a job twice changes nothing.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog

from shared.cancellation import heed
from shared.commit import commit, stop_batch, tell
from shared.db import api_keys, batches, idempotency, leases, partitions, rate_limits, sweep, transitions
from shared.db import engine as db
from shared.db.transitions import Transition, ended_queued
from shared.errors import ErrorKind, ProviderError, Unavailable
from shared.lifecycle import JobState, Verdict, after_attempt
from shared.queue import FILLED, Queue, RedisAway
from shared.queue.entries import Entry
from workers import books
from workers.finish import transition

log = structlog.get_logger(__name__)

PAGE = 2_000
CANCEL_SECONDS = 5.0
_MINUTE = 60.0
_HOUR = 3600.0
_LOST = ProviderError(ErrorKind.LEASE_LOST, "the worker that ran this attempt was lost")


class Maintenance:
    """The repairs, each a method that may run at any time; `run` runs them for ever."""

    def __init__(self, engine: db.Engine, queue: Queue, *, max_attempts: int, lease: float = 0.0) -> None:
        self._engine = engine
        self._queue = queue
        self._max_attempts = max_attempts
        self._rng = random.Random()
        self._swept: UUID = sweep.START
        self._lease = lease
        self._patient_until = time.monotonic() + lease
        self._caps: tuple[int, Mapping[tuple[str, UUID | None], int]] | None = None
        self._capped = True  # somebody before us may have set some

    async def run(self, *, every: float) -> None:
        """Sweep every so many seconds, and tend the tables every hour, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for work, seconds in (
                (self.give_back_lost, every),
                (self.enqueue_missing, every),
                (self.expire_overdue, every),
                (self.end_cancelled, every),
                (self.set_caps, every),
                (self.keep_books, _MINUTE),
                (self.check_books, _HOUR),
                (self.tend_tables, _HOUR),
            ):
                tasks.create_task(repeat(work, every=seconds))

    async def give_back_lost(self) -> int:
        """End the attempts of workers whose lease ran out; return how many there were.

        After Postgres was away nobody could renew, so for the time of a lease nothing is taken from anyone.
        """
        now = datetime.now(UTC)
        try:
            await db.ping(self._engine)
        except Unavailable:
            self._patient_until = time.monotonic() + self._lease
            raise
        if time.monotonic() < self._patient_until:
            return 0
        async with db.transaction(self._engine) as connection:
            expired, held = await leases.lost(connection, limit=PAGE)
            changes = [
                _lost(
                    job,
                    after_attempt(
                        JobState(job.charged, self._max_attempts, job.deadline, job.attempt), _LOST, now, self._rng
                    ),
                )
                for job in held
            ]
            applied = await transitions.apply(connection, changes) if changes else []
            await leases.remove(connection, expired)
        if changes:
            log.warning("leases.lost", leases=len(expired), jobs=len(changes))
            await tell(self._queue, changes, applied)
        return len(changes)

    async def enqueue_missing(self) -> int:
        """Put queued jobs in Redis that are not there: all at once where Redis was emptied, else a page at a time.

        Returns how many were looked at.
        """
        emptied = not await self._queue.redis.exists(FILLED)
        if emptied:
            self._swept = sweep.START
        looked = await self._enqueue_page()
        while emptied and self._swept != sweep.START:
            looked += await self._enqueue_page()
        if emptied:
            await self._queue.redis.set(FILLED, 1)
            log.warning("queue.refilled", jobs=looked)
        return looked

    async def _enqueue_page(self) -> int:
        async with db.transaction(self._engine) as connection:
            rows = await sweep.queued(connection, after=self._swept, limit=PAGE)
        await self._queue.enqueue(Entry.of(row) for row in rows)
        self._swept = rows[-1].id if len(rows) == PAGE else sweep.START
        return len(rows)

    async def expire_overdue(self) -> int:
        """End queued jobs whose deadline has passed; return how many."""
        async with db.transaction(self._engine) as connection:
            overdue = await sweep.overdue(connection, limit=PAGE)
        changes = [ended_queued(job, "expired") for job in overdue]
        if changes:
            await commit(self._engine, self._queue, changes)
        return len(changes)

    async def end_cancelled(self) -> int:
        """Go on with the cancelling of batches that somebody left in the middle of it; return how many there are."""
        async with db.transaction(self._engine) as connection:
            found = await batches.cancelling(connection, seconds=CANCEL_SECONDS, limit=PAGE)
        for batch in found:
            await stop_batch(self._engine, self._queue, batch.tenant_id, batch.id)
        return len(found)

    async def set_caps(self) -> int:
        """Tell the queue how many calls tenants and keys may have under way; return how many of them are limited.

        Postgres is asked again after a change only, Redis is told each time: it may have been emptied.
        """
        version = await db.run(self._engine, api_keys.version, alone=True)
        if self._caps is None or self._caps[0] != version:
            self._caps = version, await db.run(self._engine, rate_limits.in_flight, alone=True)
        caps = self._caps[1]
        if caps or self._capped:
            await self._queue.set_caps(caps)
        self._capped = bool(caps)
        return len(caps)

    async def keep_books(self) -> None:
        """Free what is held for attempts that are over, let held jobs go, foresee which budgets will be spent."""
        await books.free_abandoned(self._engine)
        await books.let_go(self._engine, self._queue)
        await books.foresee(self._engine)

    async def check_books(self) -> int:
        """Prove that the ledger, attempts, usage and budgets of the last day agree; return how many differ."""
        return await books.check(self._engine)

    async def tend_tables(self) -> None:
        """Make the partitions of the days ahead, forget old idempotency keys."""
        async with db.transaction(self._engine) as connection:
            made = await partitions.ensure(connection)
        forgotten, page = 0, PAGE
        while page == PAGE:
            async with db.transaction(self._engine) as connection:
                page = await idempotency.prune(connection, limit=PAGE)
            forgotten += page
        log.info("tables.tended", partitions=made, idempotency_keys=forgotten)


def _lost(job: Any, verdict: Verdict) -> Transition:
    """Return what a verdict changes; the attempt is `lost` whatever follows, so its worker may yet book it.

    Until then it is booked at what such calls usually cost, where something was held for it.
    """
    change = transition(job, verdict, cost_nanos=job.usual_nanos)
    assert change.attempt_end is not None
    estimated = job.usual_nanos is not None
    return replace(change, attempt_end=replace(change.attempt_end, status="lost", estimated=estimated))


async def repeat(work: Callable[[], Awaitable[object]], *, every: float) -> None:
    """Do something every so many seconds for ever, whatever becomes of it."""
    while True:
        heed()
        pause = every
        try:
            await work()
        except (Unavailable, *RedisAway) as error:
            log.warning("maintenance.waited", work=work.__name__, error=str(error))
            pause = 1.0
        except Exception:
            log.exception("maintenance.crashed", work=work.__name__)
        await asyncio.sleep(pause)
