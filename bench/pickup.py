"""Idle pick-up: from before a job is stored to the provider's receipt of its call.

The clock starts at `created_at`, taken before the insert, so the figure includes the commit it is counted from.
"""

import asyncio
from datetime import datetime
from pathlib import Path

from bench.figures import Figure, quantile
from bench.stack import stack
from tests.gateway import line

JOBS = 300


async def run(directory: Path, database_url: str, redis_url: str) -> list[Figure]:
    created = {}
    async with stack(directory, database_url, redis_url, ("upstream", "api", "maintain", "simulated")) as gateway:
        for _ in range(20):
            await gateway.ended(await gateway.submit())
        for _ in range(JOBS):
            _, job, _ = await gateway.ask("POST", "/v1/jobs", line())
            created[f"{job['id']}-1"] = datetime.fromisoformat(job["created_at"]).timestamp()
            await asyncio.sleep(0.04)
        await gateway.ended(job["id"])
        waits = [1000 * (call["t"] - created[call["id"]]) for call in gateway.calls() if call["id"] in created]
    p50, p99 = quantile(waits, 0.5), quantile(waits, 0.99)
    return [Figure(f"p50 {p50:.1f} ms (≤ 8), p99 {p99:.1f} ms (≤ 30) of {len(waits)} jobs", p50 <= 8 and p99 <= 30)]
