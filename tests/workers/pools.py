"""A pool in this process, on real stores and a provider on a real socket: for tests that look inside."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from aiohttp import web
from sqlalchemy import text

from shared import ids, queue, settings, simulation
from shared.config import Config
from shared.db import engine as db
from shared.db import jobs
from shared.db.jobs import NewJob
from shared.queue import Queue
from shared.queue.entries import Entry
from shared.simulation import Behaviour
from tests.gateway import until
from workers import call
from workers.finish import Finisher
from workers.merged_redis import MergedRedis
from workers.pool import PoolWorker
from workers.run_job import Context

TENANT = "default"


@dataclass(slots=True)
class Upstream:
    """The provider: the attempts it was called for, in order, and how many calls it had open at once at most."""

    url: str = ""
    calls: list[tuple[float, str]] = field(default_factory=list)
    open: int = 0
    peak: int = 0
    disconnected: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        raw = await request.read()
        id_ = request.headers["x-client-request-id"]
        seen = sum(known.rpartition("-")[0] == id_.rpartition("-")[0] for _, known in self.calls)
        self.calls.append((time.monotonic(), id_))
        self.open += 1
        self.peak = max(self.peak, self.open)
        reply = simulation.reply(Behaviour(), request.path, orjson.loads(raw), seen=seen, same=id_)
        try:
            await asyncio.sleep(reply.latency)
        except asyncio.CancelledError:
            self.disconnected += 1
            raise
        finally:
            self.open -= 1
        headers = {"content-type": "application/json", **reply.headers}
        return web.Response(body=reply.body, status=reply.status, headers=headers)

    def called(self) -> list[str]:
        """Return the ids of the attempts that were called, `job_…-N`, in order."""
        return [id_ for _, id_ in self.calls]


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores, and jobs put into them as the front door would."""

    engine: db.Engine
    queue: Queue
    upstream: Upstream

    async def submit(
        self,
        number: int = 1,
        *,
        model: str = "m",
        priority: str = "standard",
        after: float = 0.0,
        enqueue: bool = True,
        **simulate: Any,
    ) -> list[str]:
        """Store and enqueue jobs due `after` so many seconds; return their ids, `job_…`."""
        now = datetime.now(UTC)
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "simulate": simulate}
        new = [
            NewJob(
                id=ids.new_id(), tenant_id=TENANT, batch_id=None, custom_id=None, url="/v1/chat/completions",
                model=f"p/{model}", provider="p", upstream_model=model, priority=priority, created_at=now,
                run_at=now + timedelta(seconds=after), deadline=None, metadata={}, webhook=None,
                body=orjson.dumps(body),
            )
            for _ in range(number)
        ]  # fmt: skip
        async with db.transaction(self.engine) as connection:
            await jobs.insert(connection, new)
        if enqueue:
            await self.queue.enqueue(Entry.of(one) for one in new)
        return [ids.show("job", one.id) for one in new]

    async def rows(self, query: str, **values: object) -> Sequence[Any]:
        async with db.transaction(self.engine) as connection:
            found = await connection.execute(text(query), values)
            return found.all() if found.returns_rows else []

    async def statuses(self) -> list[str]:
        """Return the statuses of all jobs, oldest first."""
        return [row.status for row in await self.rows("SELECT status FROM jobs ORDER BY id")]

    async def attempts(self, job: str) -> list[tuple[str, bool]]:
        """Return status and charge of a job's attempts, first to last."""
        rows = await self.rows("SELECT status, charged FROM attempts WHERE job_id = :id ORDER BY number", id=uuid(job))
        return [tuple(row) for row in rows]

    async def completed(self, *, seconds: float = 10) -> None:
        """Wait until every job is."""
        await until(self.statuses, lambda found: set(found) == {"completed"}, seconds=seconds, what="all completed")


def uuid(job: str) -> UUID:
    found = ids.parse("job", job)
    assert found is not None
    return found


@asynccontextmanager
async def stores(database: str, redis: str) -> AsyncIterator[Stores]:
    """Open both stores, and the provider."""
    upstream = Upstream()
    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", upstream.answer)])
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    async with AsyncExitStack() as stack:
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        engine = db.create(database, pool_size=4, name="test")
        stack.push_async_callback(engine.dispose)
        client = queue.connect(redis)
        stack.push_async_callback(lambda: client.aclose(close_connection_pool=True))
        yield Stores(engine, Queue(client), upstream)


@asynccontextmanager
async def pool(
    held: Stores, redis: str, *, slots: int = 4, lease: float = 2.0, renewal: float = 0.5
) -> AsyncIterator[PoolWorker]:
    """Run a pool of provider `p` for the block, as `python -m workers pool p` does; then have it give back its jobs."""
    chosen = settings.load(worker_slots=slots, lease=lease, renewal=renewal, shutdown_grace=1)
    config = Config.model_validate(
        {"providers": {"p": {"kind": "simulated", "base_url": held.upstream.url}}, "source": "test"}
    )
    client = queue.connect(redis, client=MergedRedis)
    # More connections than slots: what holds calls back is the claim.
    async with call.session(connections=100, connect_timeout=5) as session:
        line = Queue(client)
        context = Context(config, chosen, session, Finisher(held.engine, line), line)
        worker = PoolWorker(context, held.engine, client, provider="p", name="w")
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().remove_signal_handler(number)  # arq's; this process is the test's
        await worker.open_lease()
        keeping = [asyncio.create_task(work) for work in (worker.keep_lease(), worker.listen_for_cancels())]
        running = asyncio.create_task(worker.async_run())
        try:
            yield worker
            assert not any(task.done() for task in (running, *keeping))
        finally:
            worker.allow_pick_jobs = False
            assert worker.main_task is not None
            worker.main_task.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await worker.wind_down()
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)
            await worker.close_lease()
            await client.aclose(close_connection_pool=True)
