"""`GET /v1/usage` over the roll-ups of ten million jobs."""

import asyncio
import time
from pathlib import Path

import asyncpg

from bench.figures import Figure, quantile
from bench.stack import stack
from tests.gateway import CONFIG, Gateway

DAYS = 30
TIMES = 150
MOST_MS = 100

SHAPES = {
    "a week by day": "",
    "30 days by day, model": "group_by=model&start=DAYS",
    "30 days by day, key, model": "group_by=key,model&start=DAYS",
    "30 days in all": "interval=all&start=DAYS",
    "a week by hour, model": "interval=hour&group_by=model",
    "30 days of one key": "key_id=KEY&start=DAYS",
    "30 days of one user": "user=user-7&group_by=model&start=DAYS",
    "a week by user": "group_by=user&interval=all",
    "30 days by tag": "group_by=tag&start=DAYS",
    "30 days of all tenants": "group_by=tenant&start=DAYS",
}

# As 10 million jobs would leave them: by the hour, of five models, three keys and about eight buckets; each tag on most
# jobs, and 200 end users who come now and then.
ROLL_UPS = """
INSERT INTO usage_hours (tenant_id, hour, team_id, key_id, model, provider, label, bucket, jobs, errors, attempts,
    input_tokens, cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens, cost_nanos, unpriced, saved_nanos)
SELECT $1, date_trunc('hour', now()) - h * interval '1 hour', '00000000-0000-0000-0000-000000000000',
    ('00000000-0000-7000-8000-00000000000' || k)::uuid, 'model-' || m, 'provider-' || m % 2, l.label, b, n, n / 50, n,
    n * 900, n * 300, 0, n * 250, n * 50, n * 700000, 0, 0
FROM generate_series(0, 24 * $2 - 1) AS h, generate_series(1, 5) AS m, generate_series(1, 3) AS k,
    generate_series(28, 35) AS b, LATERAL (SELECT 70 + (h * 31 + m * 17 + k * 7 + b * 3) % 90 AS n) AS n,
    LATERAL (
        SELECT '' AS label
        UNION ALL SELECT 'tag:feature=' || f FROM generate_series(1, 3) AS f WHERE k = 1
        UNION ALL SELECT 'user:user-' || (h * 7 + m * 5 + u * 3) % 200 FROM generate_series(1, 10) AS u
            WHERE k = 2 AND b IN (29, 31, 33)
    ) AS l
ON CONFLICT DO NOTHING
"""


async def run(directory: Path, database_url: str, redis_url: str) -> list[Figure]:
    config = CONFIG + "usage: {tags: [feature]}\n"
    async with stack(directory, database_url, redis_url, ("api",), config=config) as gateway:
        jobs, rows = await _fill(database_url)
        figures = [await _shape(gateway, name, query) for name, query in SHAPES.items()]
    return [Figure(f"{jobs:,} jobs in {rows:,} rows of roll-ups, {TIMES} requests a shape", jobs >= 9e6), *figures]


async def _fill(url: str) -> tuple[int, int]:
    connection = await asyncpg.connect(url, timeout=10, command_timeout=600)
    try:
        await connection.execute("INSERT INTO tenants (id, name) VALUES ('other', 'other') ON CONFLICT DO NOTHING")
        await connection.execute(ROLL_UPS, "default", DAYS)
        await connection.execute(ROLL_UPS, "other", 3)
        await connection.execute("VACUUM ANALYZE usage_hours")
        jobs = await connection.fetchval("SELECT sum(jobs) FROM usage_hours WHERE label = '' AND tenant_id = 'default'")
        return int(jobs), await connection.fetchval("SELECT count(*) FROM usage_hours")
    finally:
        await connection.close(timeout=10)


async def _shape(gateway: Gateway, name: str, query: str) -> Figure:
    start = time.strftime("%Y-%m-%d", time.gmtime(time.time() - (DAYS - 1) * 86_400))
    filled = query.replace("DAYS", start).replace("KEY", "key_00000000000070008000000000000001")
    url = f"{gateway.url}/v1/usage?{filled}"
    took, rows = [], 0
    for _ in range(10 + TIMES):
        begun = time.perf_counter()
        async with gateway.client.get(url) as answer:
            page = await answer.json()
            assert answer.status == 200, page
        took.append(1000 * (time.perf_counter() - begun))
        rows = len(page["data"])
        await asyncio.sleep(0)
    p50, p99 = (quantile(took[10:], share) for share in (0.5, 0.99))
    return Figure(f"{name}: {rows} rows, p50 {p50:.0f} ms, p99 {p99:.0f} ms (≤ {MOST_MS})", p99 <= MOST_MS)
