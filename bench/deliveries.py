"""Webhooks: deliveries/s of one process, from a job's end to its receipt, receivers that hang, a deep outbox."""

import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from sqlalchemy import text

from bench.figures import Figure, quantile
from bench.stack import stack
from shared import ids, queue
from shared.db import deliveries, migrate
from shared.db import engine as db
from shared.db.deliveries import Room
from shared.queue import DELIVER_WAKE, Queue
from tests.gateway import Gateway, until

EVENTS = 20_000
JOBS = 200
HANG, OTHERS, BACKLOG = 90, 10, 200
SECONDS = 8
FEW, MANY, LANES = 1_000, 1_000_000, 5_000
ROUNDS = 30

_JOBS = """
WITH made AS (
    INSERT INTO jobs (id, tenant_id, url, model, provider, upstream_model, priority, status, run_at, finished_at,
        metadata)
    SELECT new_id(), 'default', '/v1/chat/completions', 'm', 'p', 'm', 'standard', 'completed', now(), now(), '{}'
    FROM generate_series(1, 1000) RETURNING id
) INSERT INTO results (job_id, body) SELECT id, '{"choices":[]}' FROM made
"""
_EVENTS = """
INSERT INTO deliveries (id, event_id, tenant_id, endpoint_id, lane, type, job_id, next_at)
SELECT new_id(), new_id(), 'default', e.id, replace(e.id::text, '-', ''), 'job.completed', j.id, now()
FROM generate_series(1, $1::integer) AS n
JOIN (SELECT id, row_number() OVER (ORDER BY id) - 1 AS place FROM webhook_endpoints WHERE url LIKE $2) AS e
    ON e.place = n % (SELECT count(*) FROM webhook_endpoints WHERE url LIKE $2)
JOIN (SELECT id, row_number() OVER (ORDER BY id) - 1 AS place FROM jobs WHERE status = 'completed' LIMIT 1000) AS j
    ON j.place = n % 1000
RETURNING event_id
"""
_PENDING = """
INSERT INTO deliveries (id, event_id, tenant_id, lane, type, body, url, next_at)
SELECT new_id(), new_id(), 'default', 'default/h' || n % $2 || ':443', 'budget.exhausted', '{}', 'https://h/',
    now() + (CASE WHEN n <= 100 THEN -1 ELSE 3600 + n % 80000 END) * interval '1 second'
FROM generate_series(1, $1::integer) AS n
"""


async def run(directory: Path, database_url: str, redis_url: str) -> list[Figure]:
    await migrate.upgrade(database_url)
    figures = []
    async with receiver() as target, connected(database_url) as connection:
        await connection.execute(_JOBS)
        parts = ("upstream", "api", "maintain", "simulated")
        async with stack(directory, database_url, redis_url, parts, SLUICE_WEBHOOK_TIMEOUT="20") as gateway:
            for number in range(100):
                await _endpoint(gateway, f"{target.url}/ok/{number}", "job.cancelled")
            figures.append(await _rate(gateway, connection, target))
            await _forget(connection)
            figures.append(await _latency(gateway, target))
            await _forget(connection)
            figures.append(await _hanging(gateway, connection, target))
        await connection.execute("TRUNCATE deliveries, delivery_attempts")
        figures += await _depth(database_url, connection)
    return figures


class Target:
    """The receiver, and what has come to it."""

    def __init__(self, url: str, client: aiohttp.ClientSession) -> None:
        self.url = url
        self._client = client

    async def came(self, after: int = 0) -> list[tuple[str, float]]:
        async with self._client.get(self.url, params={"after": str(after)}) as answer:
            found: list[tuple[str, float]] = await answer.json()
            return found

    async def count(self) -> int:
        async with self._client.get(self.url, params={"count": "1"}) as answer:
            return int(await answer.json())


@contextlib.asynccontextmanager
async def receiver() -> AsyncIterator[Target]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.webhook_receiver", stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    port = int(await child.stdout.readline())
    try:
        async with aiohttp.ClientSession() as client:
            yield Target(f"http://127.0.0.1:{port}", client)
    finally:
        child.kill()
        await child.wait()


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url, command_timeout=600)
    try:
        yield connection
    finally:
        await connection.close()


async def _endpoint(gateway: Gateway, url: str, *types: str) -> None:
    asked = {"url": url, "name": "bench", "event_types": list(types)}
    status, made, _ = await gateway.ask("POST", "/v1/webhook_endpoints", asked)
    assert status == 200, made


async def _forget(connection: asyncpg.Connection) -> None:
    await connection.execute("UPDATE webhook_endpoints SET deleted_at = now() WHERE deleted_at IS NULL")


async def _rate(gateway: Gateway, connection: asyncpg.Connection, target: Target) -> Figure:
    await connection.fetch(_EVENTS, EVENTS, "%/ok/%")
    await gateway.start("deliver")
    begun = done = 0
    first = 0.0
    while done < EVENTS:
        done = await target.count()
        if not first and done >= EVENTS // 10:
            first, begun = time.perf_counter(), done
        await asyncio.sleep(0.1)
    rate = (done - begun) / (time.perf_counter() - first)
    return Figure(f"{rate:,.0f} deliveries/s of one process to 100 endpoints (≥ 1,000)", rate >= 1_000)


async def _latency(gateway: Gateway, target: Target) -> Figure:
    await _endpoint(gateway, f"{target.url}/ok/latency", "job.completed")
    before = await target.count()
    ended: list[datetime] = []
    made = []
    for _ in range(JOBS):
        made.append(await gateway.submit())
        await asyncio.sleep(0.05)
    for id_ in made:
        ended.append(datetime.fromisoformat((await gateway.ended(id_))["finished_at"]))
    await until(target.count, lambda count: count >= before + JOBS)
    _, listed, _ = await gateway.ask("GET", "/v1/webhook_deliveries?limit=100")
    finished = {one["event_id"]: one["job_id"] for one in listed["data"]}
    when = dict(zip(made, ended, strict=True))
    waits = [
        1000 * (at - when[finished[event]].timestamp()) for event, at in await target.came(before) if event in finished
    ]
    p50, p99 = quantile(waits, 0.5), quantile(waits, 0.99)
    return Figure(
        f"from a job's end to its receipt p50 {p50:.1f} ms, p99 {p99:.1f} ms (≤ 50) of {len(waits)}", p99 <= 50
    )


async def _hanging(gateway: Gateway, connection: asyncpg.Connection, target: Target) -> Figure:
    for number in range(HANG):
        await _endpoint(gateway, f"{target.url}/hang/{number}", "job.cancelled")
    for number in range(OTHERS):
        await _endpoint(gateway, f"{target.url}/ok/other-{number}", "job.expired")
    await connection.fetch(_EVENTS, HANG * BACKLOG, "%/hang/%")
    await gateway.kill("deliver")
    await gateway.start("deliver")
    await asyncio.sleep(3)
    before, made = await target.count(), {}
    redis = queue.connect(gateway.env["SLUICE_REDIS_URL"])
    line_ = Queue(redis)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        at = time.time()
        for row in await connection.fetch(_EVENTS, 10, "%/ok/other-%"):
            made[ids.show("evt", row["event_id"])] = at
        await line_.wake(DELIVER_WAKE)
        await asyncio.sleep(0.1)
    await until(target.count, lambda count: count >= before + len(made))
    await redis.aclose(close_connection_pool=True)
    waits = [1000 * (at - made[event]) for event, at in await target.came(before) if event in made]
    p50, p99 = quantile(waits, 0.5), quantile(waits, 0.99)
    return Figure(
        f"{HANG} of {HANG + OTHERS} endpoints hang, {HANG * BACKLOG:,} events behind them: the others' "
        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms (< 200) of {len(waits)}",
        p99 < 200,
    )


async def _depth(database_url: str, connection: asyncpg.Connection) -> list[Figure]:
    """Time what a round asks of Postgres, and read the plans, with few and with many pending."""
    engine = db.create(database_url, pool_size=2, name="bench", by_key=True)
    try:
        took = {}
        for pending in (FEW, MANY):
            await connection.execute("TRUNCATE deliveries")
            await connection.execute(_PENDING, pending, LANES)
            await connection.execute("VACUUM ANALYZE deliveries")
            took[pending] = await _timed(engine)
        plan = await _plan(engine)
    finally:
        await engine.dispose()
    ratio = took[MANY][0] / took[FEW][0]
    shown = (
        f"{took[FEW][0]:.1f} → {took[MANY][0]:.1f} ms; every lane looked at {took[FEW][1]:.0f} → {took[MANY][1]:.0f} ms"
    )
    return [
        Figure(
            f"a look and a claim with {MANY:,} pending {ratio:.2f} x that with {FEW:,} (≤ 1.5): {shown}", ratio <= 1.5
        ),
        Figure(f"no table is read whole: {', '.join(sorted(plan))}", not any("Seq Scan" in one for one in plan)),
    ]


async def _timed(engine: db.Engine) -> tuple[float, float]:
    rounds, everywhere = [], []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        async with engine.connect() as connection:
            found = await deliveries.look(connection, datetime.now(UTC) - timedelta(seconds=600))
            rooms = [Room(lane, 10, 0) for lane in found.lanes]
            claimed = await deliveries.claim(connection, rooms, limit=200, lease=50)
            assert len(claimed) == 100
            rounds.append(time.perf_counter() - begun)
            await connection.rollback()
        begun = time.perf_counter()
        async with engine.connect() as connection:
            assert len(await deliveries.look_everywhere(connection)) == 100
        everywhere.append(time.perf_counter() - begun)
    return 1000 * statistics.median(rounds), 1000 * statistics.median(everywhere)


async def _plan(engine: db.Engine) -> set[str]:
    """Return how the claim reads: the names of its scans."""
    async with engine.connect() as connection:
        await connection.execute(text("SET plan_cache_mode = force_custom_plan"))
        query = text(f"EXPLAIN {deliveries._CLAIM.text}")
        values: dict[str, Any] = {"lanes": ["default/h1:443"], "widths": [10], "busy": [0], "concurrency": 10}
        rows = await connection.execute(query, values | {"disabled": 100, "limit": 200, "lease": 50})
        return {" ".join(row[0].strip(" ->").split()[:3]) for row in rows if "Scan" in row[0] and " on " in row[0]}
