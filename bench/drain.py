"""Drain: jobs/s of one worker process with a 0 ms upstream, everything durable.

Against a stock arq worker, tuned, whose jobs do nothing.
"""

import asyncio
import contextlib
import signal
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from arq.connections import ArqRedis

from bench.figures import Figure
from bench.stack import stack
from shared import queue
from tests.gateway import Gateway, line

JOBS = 6_000
ROUNDS = 3


async def run(directory: Path, database_url: str, redis_url: str) -> list[Figure]:
    ratios, ours, theirs = [], [], []
    async with stack(directory, database_url, redis_url, ("upstream", "api", "maintain")) as gateway:
        for _ in range(ROUNDS):
            theirs.append(await _stock(redis_url))
            ours.append(await _sluice(gateway))
            ratios.append(ours[-1] / theirs[-1])
    ratio = statistics.median(ratios)
    shown = ", ".join(f"{one:.2f}" for one in ratios)
    text = (
        f"{ratio:.2f} x stock arq doing nothing (≥ 0.8; {shown}): "
        f"{statistics.median(ours):,.0f} against {statistics.median(theirs):,.0f} jobs/s"
    )
    return [Figure(text, ratio >= 0.8)]


async def _sluice(gateway: Gateway) -> float:
    _, batch, _ = await gateway.ask("POST", "/v1/batches", {"requests": [line(priority="bulk")] * JOBS})

    async def done() -> int:
        _, seen, _ = await gateway.ask("GET", f"/v1/batches/{batch['id']}")
        return int(seen["request_counts"]["completed"])

    await gateway.start("simulated", "simulated")
    try:
        return await _rate(done)
    finally:
        await gateway.kill("simulated", signal.SIGTERM)


async def _stock(redis_url: str) -> float:
    redis = queue.connect(redis_url, client=ArqRedis)
    await redis.flushdb()
    for _ in range(JOBS // 500):
        await asyncio.gather(*(redis.enqueue_job("nothing") for _ in range(500)))

    async def done() -> int:
        return JOBS - int(await redis.zcard("arq:queue"))

    worker = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.stock_arq", redis_url)
    try:
        return await _rate(done)
    finally:
        with contextlib.suppress(ProcessLookupError):
            worker.terminate()
        await worker.wait()
        await redis.aclose(close_connection_pool=True)


async def _rate(done: Callable[[], Awaitable[int]]) -> float:
    """Return the jobs/s from a tenth of the jobs to all of them, so that starting the worker does not count."""
    first = 0.0
    begun = 0
    while True:
        count = await done()
        if not first and count >= JOBS // 10:
            first, begun = time.perf_counter(), count
        if count >= JOBS:
            return (JOBS - begun) / (time.perf_counter() - first)
        await asyncio.sleep(0.05)
