"""A pool: the arq workers of one provider. `PoolWorker` is arq's worker with another way to find its next jobs.

arq reads a sorted set every half second and takes ids one by one. Here a claim is made when something happened (a
submit, a freed slot, a due time), takes many jobs at once, and is committed in Postgres before they start. Everything
else is arq's own: `run_job`, cron, health key, hooks, signals, shutdown.
"""

import asyncio
import sys
from datetime import UTC, datetime
from uuid import UUID

import orjson
import structlog
from arq.worker import Worker, func

from shared import ids
from shared.cancellation import heed
from shared.commit import commit
from shared.db import engine as db
from shared.db import leases
from shared.db.claims import Claim
from shared.db.transitions import Applied
from shared.errors import ErrorKind, ProviderError, Unavailable
from shared.lifecycle import JobState, Release, Stop, Verdict, after_attempt
from shared.limits import deployments_json
from shared.queue import CANCEL, Queue, RedisAway, announced, prefix
from shared.queue.entries import Taken
from workers.claim import claim
from workers.finish import transition
from workers.hand_over import HandOver
from workers.merged_redis import MergedRedis
from workers.quote import Quoter
from workers.run_job import Context, Held, run_job

log = structlog.get_logger(__name__)

_SAFETY_SECONDS = 0.5
_GATHER_SECONDS = 0.01
_AWAY_SECONDS = 0.5


class PoolWorker(Worker):
    """An arq worker that claims jobs of one provider under a lease. arq 0.28's `_poll_iteration` is replaced."""

    def __init__(self, context: Context, engine: db.Engine, redis: MergedRedis, *, provider: str, name: str) -> None:
        settings = context.settings
        super().__init__(
            functions=[func(self._run, name="run", max_tries=sys.maxsize)],
            queue_name=f"{prefix(provider)}queue",
            redis_pool=redis,
            poll_delay=0,
            max_jobs=settings.worker_slots,
            job_timeout=settings.job_timeout + 60,
            keep_result=0,
            log_results=False,
            job_completion_wait=max(1, round(settings.shutdown_grace)),
            health_check_interval=5,
            health_check_key=f"{prefix(provider)}health:{name}",
            job_serializer=orjson.dumps,
            job_deserializer=orjson.loads,
        )
        self.provider = provider
        self.held: dict[UUID, Held] = {}
        self._context = context
        self._engine = engine
        self._queue: Queue = context.queue
        self._name = name
        self._lease = ids.new_id()
        self._claiming: set[UUID] = set()
        self._freed = asyncio.Event()
        self._next_due = 0.0
        self._more = True
        self._quoter = Quoter(context.config)
        self._limits = deployments_json(context.config.providers[provider])
        self._hand_over = HandOver(engine, self._queue, context.config, provider)
        self._giving_back: set[asyncio.Task[Applied]] = set()

    async def wind_down(self) -> None:
        """Stop the jobs that run here and wait until every one of them is finished or given back."""
        for task in self.tasks.values():
            if not task.cancelling():  # a second cancellation would end arq's wait for what the first one began
                task.cancel()
        while self.tasks or self._giving_back:
            await asyncio.wait([*self.tasks.values(), *self._giving_back])
        await self._hand_over.end()

    async def open_lease(self) -> None:
        """Begin the lease that claims are made under. Raises Unavailable where Postgres is away."""
        seconds = self._context.settings.lease
        lease = ids.new_id()
        await db.run(
            self._engine,
            lambda connection: leases.open_(
                connection, lease, worker=self._name, provider=self.provider, seconds=seconds
            ),
        )
        self._lease = lease

    async def close_lease(self) -> None:
        """End the lease; where jobs are still under it, it runs out."""
        await db.run(self._engine, lambda connection: leases.close(connection, self._lease))

    # ------------------------------------------------------------------ claiming

    async def _poll_iteration(self) -> None:
        """Wait until there is room and something to do, claim, start; replaces arq's poll."""
        heed()
        try:
            if not self.allow_pick_jobs:
                await self._wait_freed(_SAFETY_SECONDS)
            elif await self._room():
                if not self._more:
                    await self._queue.woken(f"{prefix(self.provider)}wake", seconds=self._patience())
                await self._claim_whole()
            await self.heart_beat()
        except (Unavailable, *RedisAway) as error:
            log.warning("pool.waited", provider=self.provider, error=str(error))
            await self._rest()
        except Exception:
            # Whatever is wrong with claiming, the calls that run here go on.
            log.exception("pool.not_claimed", provider=self.provider)
            await self._rest()

    async def _rest(self) -> None:
        self._more = True
        await asyncio.sleep(_AWAY_SECONDS)

    async def _room(self) -> bool:
        """Tell whether slots are free, having waited a moment for more to come free when few are."""
        free = self.max_jobs - self.job_counter
        if free <= 0:
            await self._wait_freed(_SAFETY_SECONDS)
        if free < self.max_jobs // 8:
            await asyncio.sleep(_GATHER_SECONDS)
        return self.job_counter < self.max_jobs and self.allow_pick_jobs

    async def _wait_freed(self, seconds: float) -> None:
        self._freed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._freed.wait()
        except TimeoutError:
            return

    def _patience(self) -> float:
        return max(0.001, min(self._next_due, _SAFETY_SECONDS))

    async def _claim_whole(self) -> None:
        """Claim, and when told to stop meanwhile see it through: what was taken is known and given back."""
        claiming = asyncio.create_task(self._claim())
        try:
            await asyncio.shield(claiming)
        except asyncio.CancelledError:
            await asyncio.wait([claiming])
            raise
        finally:
            self._claiming.clear()

    async def _claim(self) -> None:
        claimed = await claim(
            self._engine,
            self._queue,
            self.provider,
            lease=self._lease,
            seconds=self._context.settings.lease,
            most=self.max_jobs - self.job_counter,
            held=self.held,
            claiming=self._claiming,
            quoter=self._quoter,
            limits=self._limits,
            in_flight=self._context.config.tenants.defaults.in_flight or 0,
        )
        self._more = claimed.more
        self._next_due = _SAFETY_SECONDS if claimed.next_seconds is None else claimed.next_seconds
        self._hand_over.begin(claimed.shut)
        for job, drawn in claimed.jobs:
            if self.allow_pick_jobs:
                self.held[job.id] = Held(job, drawn)
                self._start(job.id)
            else:
                self._give_back(job, drawn)

    def _start(self, id_: UUID) -> None:
        job_id = id_.hex
        self.job_counter += 1
        task = self.loop.create_task(self.run_job(job_id, int(datetime.now(UTC).timestamp() * 1000)))
        self.tasks[job_id] = task
        task.add_done_callback(lambda ended: self._ended(id_, ended))

    def _ended(self, id_: UUID, task: asyncio.Task[None]) -> None:
        self.job_counter -= 1
        self._freed.set()
        self.tasks.pop(id_.hex, None)
        held = self.held.pop(id_)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("job.not_finished", job=ids.show("job", id_), exc_info=error)
        if not held.ended:
            self._give_back(held.claim, held.drawn, broken=held.broken or error is not None)

    def _give_back(self, job: Claim, drawn: Taken, *, broken: bool = False) -> None:
        """Give back a job that was cancelled before it began; one that broke has used up a try."""
        verdict: Verdict = Release()
        if broken:
            state = JobState(job.charged, self._context.settings.max_attempts, job.deadline, job.attempt)
            failure = ProviderError(ErrorKind.INTERNAL, "the worker could not finish the attempt")
            verdict = after_attempt(state, failure, datetime.now(UTC), self._context.rng)
        change = transition(job, verdict, spent=drawn.unused)
        task = self.loop.create_task(self._context.finisher.finish(change))
        self._giving_back.add(task)
        task.add_done_callback(self._giving_back.discard)

    async def _run(self, ctx: dict[str, object]) -> None:
        held = self.held[UUID(hex=str(ctx["job_id"]))]
        try:
            await run_job(self._context, held)
        except Exception:
            held.broken = True
            raise

    async def finish_job(self, *_: object) -> None:
        """Do nothing: the finish has told Redis what became of the job; replaces arq's."""

    async def finish_failed_job(self, job_id: str, result_data: bytes | None) -> None:
        """Say that arq could not start a job; it is given back as its task ends."""
        log.error("job.not_started", job=job_id)

    # ------------------------------------------------------------------ keeping

    async def keep_lease(self) -> None:
        """Renew the lease until cancelled. Runs on the event loop, so a stuck loop loses its jobs."""
        settings = self._context.settings
        while True:
            heed()
            try:
                await self._renew(settings.lease)
                await asyncio.sleep(settings.renewal)
            except (Unavailable, *RedisAway) as error:
                log.warning("lease.not_renewed", provider=self.provider, error=str(error))
                await asyncio.sleep(settings.renewal / 3)

    async def _renew(self, seconds: float) -> None:
        # What is held is asked for once a connection is there: a claim may come through while waiting for one.
        astray = await db.run(
            self._engine,
            lambda connection: leases.renew(
                connection, self._lease, seconds=seconds, held=[*self.held, *self._claiming]
            ),
        )
        held = [(job.drawn.lane, id_, job.drawn.key) for id_, job in self.held.items()]
        if astray is None:
            log.warning("lease.lost", provider=self.provider, jobs=len(held))
            await self.open_lease()
            for _, id_, _ in held:
                self.stop(id_, Stop.SHUTDOWN)
            return
        for row in astray:
            if row.cancelled:
                self.stop(row.id, Stop.CANCEL_ASKED)
        unknown = [transition(row, Release()) for row in astray if row.id not in self.held]
        if unknown:
            await commit(self._engine, self._queue, unknown)
        # A Redis that hangs must not keep the lease in Postgres from being renewed.
        async with asyncio.timeout(self._context.settings.renewal):
            await self._queue.renew(self.provider, held, lease=seconds)

    async def listen_for_cancels(self) -> None:
        """Stop jobs of ours as soon as their cancellation is announced; one that is missed is found at the renewal."""
        while True:
            heed()
            try:
                async with self._queue.redis.pubsub() as channel:
                    await channel.subscribe(CANCEL)
                    while True:
                        heed()
                        message = await channel.get_message(ignore_subscribe_messages=True, timeout=5)
                        for id_ in announced(message["data"]) if message else ():
                            self.stop(id_, Stop.CANCEL_ASKED)
            except RedisAway as error:
                log.warning("cancels.not_heard", error=str(error))
                await asyncio.sleep(_AWAY_SECONDS)

    def stop(self, id_: UUID, why: Stop) -> None:
        """Cancel the call of a job that runs here; what follows is decided as after any attempt."""
        held, task = self.held.get(id_), self.job_tasks.get(id_.hex)
        if held is not None and task is not None and held.stop is None:
            held.stop = why
            task.cancel()
