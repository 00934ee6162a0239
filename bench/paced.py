"""Jobs against a provider's limits: what the benchmarks of pace share."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bench.stack import stack
from shared import queue
from tests.gateway import Gateway, line, until

JOBS = 2_000
RPM = 3_000
BURST = 50
LATENCY_MS = 200
WORKERS = ("first", "second")

REQUEST_LIMIT = ("--rpm", str(RPM), "--burst", str(BURST))
"""The upstream's limit of W1, in its own options."""

CONFIG = """
providers:
  simulated: {kind: simulated, base_url: UPSTREAM/v1, timeout: 30s, limits: LIMITS}
"""


@dataclass(frozen=True, slots=True)
class Drained:
    """How a backlog went: the seconds until its last job was seen to be completed, and what the upstream counted."""

    seconds: float
    completed: int
    calls: int
    refused: int

    def against(self, least: float) -> str:
        """Say it with the least time, in seconds."""
        return (
            f"{self.completed:,} completed in {self.seconds:.2f} s against {least:.2f}, "
            f"{self.refused:,} of {self.calls:,} calls refused"
        )


def lines(number: int = JOBS) -> list[dict[str, Any]]:
    return [line(priority="bulk", simulate={"latency_ms": LATENCY_MS}) for _ in range(number)]


def least(jobs: int, *, a_minute: float = RPM, burst: float = BURST) -> float:
    """Return the least seconds in which a limit lets so many through."""
    return (jobs - burst) * 60 / a_minute


async def drain(
    directory: Path,
    database_url: str,
    redis_url: str,
    *,
    limits: str,
    upstream: Sequence[str],
    jobs: Sequence[dict[str, Any]],
    patience: float,
) -> Drained:
    """Submit jobs as one batch to a gateway that knows `limits`, with two worker processes; wait `patience` seconds.

    Redis is emptied first: it must not know from before what the upstream takes.
    """
    await forget(redis_url)
    config = CONFIG.replace("LIMITS", limits)
    async with stack(
        directory, database_url, redis_url, ("api", "maintain"), config=config, SLUICE_LOG_LEVEL="info"
    ) as gateway:
        await gateway.start("upstream", *upstream)
        await pools(gateway, dict.fromkeys(WORKERS, "simulated"))
        completed, took = await ended(gateway, jobs, patience=patience)
        counted = await stats(gateway.upstream_port)
    return Drained(took, completed, counted["calls"], counted["by_status"].get("429", 0))


async def forget(redis_url: str) -> None:
    """Empty Redis."""
    client = queue.connect(redis_url)
    await client.flushdb()
    await client.aclose(close_connection_pool=True)


async def pools(gateway: Gateway, wanted: dict[str, str]) -> None:
    """Start worker processes, each by its name for a provider, and wait until all claim."""

    async def started(name: str) -> None:
        async def probe() -> bool:
            return b"pool.started" in (gateway.directory / f"{name}.log").read_bytes()

        await until(probe, what=f"{name} started")

    for name, provider in wanted.items():
        await gateway.start(name, provider)
    await asyncio.gather(*(started(name) for name in wanted))


async def tenant_made(gateway: Gateway, name: str) -> None:
    """Make a tenant."""
    status, made, _ = await gateway.ask("POST", "/v1/admin/tenants", {"name": name})
    assert status in (200, 201), made


async def submit(gateway: Gateway, jobs: Sequence[dict[str, Any]], *, tenant: str = "default") -> str:
    """Submit jobs as one batch; return its id."""
    status, batch, _ = await gateway.ask("POST", "/v1/batches", {"requests": jobs}, headers={"X-Sluice-Tenant": tenant})
    assert status == 202, batch
    return str(batch["id"])


async def ended(
    gateway: Gateway, jobs: Sequence[dict[str, Any]], *, patience: float, tenant: str = "default"
) -> tuple[int, float]:
    """Submit jobs and wait for them; return how many are completed, and after how many seconds since the submit."""
    begun = time.perf_counter()
    batch = await submit(gateway, jobs, tenant=tenant)
    while True:
        _, seen, _ = await gateway.ask("GET", f"/v1/batches/{batch}", headers={"X-Sluice-Tenant": tenant})
        completed, took = int(seen["request_counts"]["completed"]), time.perf_counter() - begun
        if completed == len(jobs) or took > patience:
            return completed, took
        await asyncio.sleep(0.02)


async def stats(port: int) -> dict[str, Any]:
    """Return what the upstream on a port has counted."""
    async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{port}/stats") as answer:
        return dict(await answer.json())
