"""A provider's limit of requests a minute: how long the jobs take against the least they can, and how many 429s."""

import asyncio
import time
from pathlib import Path

import aiohttp

from bench.figures import Figure
from bench.stack import stack
from tests.gateway import Gateway, line, until

JOBS = 2_000
RPM = 3_000
BURST = 50
LATENCY_MS = 200

CONFIG = """
providers:
  simulated: {kind: simulated, base_url: UPSTREAM/v1, timeout: 30s, limits: {rpm: 3000}}
"""


async def run(directory: Path, database_url: str, redis_url: str) -> list[Figure]:
    async with stack(
        directory, database_url, redis_url, ("api", "maintain"), config=CONFIG, SLUICE_LOG_LEVEL="info"
    ) as gateway:
        await gateway.start("upstream", "--rpm", str(RPM), "--burst", str(BURST))
        await gateway.start("first", "simulated")
        await gateway.start("second", "simulated")
        await asyncio.gather(*(_started(gateway, name) for name in ("first", "second")))
        lines = [line(priority="bulk", simulate={"latency_ms": LATENCY_MS}) for _ in range(JOBS)]
        begun = time.perf_counter()
        _, batch, _ = await gateway.ask("POST", "/v1/batches", {"requests": lines})
        while True:
            _, seen, _ = await gateway.ask("GET", f"/v1/batches/{batch['id']}")
            if seen["request_counts"]["completed"] == JOBS:
                break
            await asyncio.sleep(0.02)
        took = time.perf_counter() - begun
        refused = (await _stats(gateway))["by_status"].get("429", 0)
    least = (JOBS - BURST) * 60 / RPM
    ratio = took / least
    text = f"W1 {ratio:.3f} x the least time (≤ 1.03), {refused} x 429 (0): {took:.2f} s against {least:.2f}"
    return [Figure(text, ratio <= 1.03 and refused == 0)]


async def _started(gateway: Gateway, name: str) -> None:
    async def probe() -> bool:
        return b"pool.started" in (gateway.directory / f"{name}.log").read_bytes()

    await until(probe, what=f"{name} started")


async def _stats(gateway: Gateway) -> dict[str, dict[str, int]]:
    url = f"http://127.0.0.1:{gateway.upstream_port}/stats"
    async with aiohttp.ClientSession() as client, client.get(url) as answer:
        return dict(await answer.json())
