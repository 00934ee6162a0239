"""Resident memory of one worker process with 2,000 calls in flight at 10 s upstream latency."""

import asyncio
import time
from pathlib import Path

import aiohttp
import psutil

from bench.figures import Figure
from bench.stack import stack
from tests.gateway import line

CALLS = 2_000
MOST_MB = 400


async def run(directory: Path, database_url: str, redis_url: str) -> list[Figure]:
    parts = ("upstream", "api", "maintain", "simulated")
    async with stack(directory, database_url, redis_url, parts, SLUICE_WORKER_SLOTS=str(CALLS)) as gateway:
        text = "Some words of a document. " * 80
        lines = [line(text=text, simulate={"latency_ms": 10_000}) for _ in range(CALLS)]
        _, batch, _ = await gateway.ask("POST", "/v1/batches", {"requests": lines})
        worker = psutil.Process(gateway.children["simulated"].pid)
        most, in_flight, deadline = 0.0, 0, time.monotonic() + 90
        completed = 0
        while completed < CALLS and time.monotonic() < deadline:
            most = max(most, worker.memory_info().rss / 2**20)
            async with (
                aiohttp.ClientSession() as client,
                client.get(f"http://127.0.0.1:{gateway.upstream_port}/stats") as answer,
            ):
                in_flight = max(in_flight, (await answer.json())["peak_in_flight"])
            _, seen, _ = await gateway.ask("GET", f"/v1/batches/{batch['id']}")
            completed = seen["request_counts"]["completed"]
            await asyncio.sleep(0.2)
    reached = most < MOST_MB and in_flight >= CALLS and completed == CALLS
    return [Figure(f"{most:.0f} MB (< {MOST_MB}) with {in_flight:,} calls in flight, {completed:,} completed", reached)]
