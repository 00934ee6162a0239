"""How far `queue.eta_seconds` of waiting jobs is from how long they then wait: two tenants, two priorities."""

import asyncio
import random
import time
from datetime import datetime
from pathlib import Path

from bench.figures import Figure, quantile
from bench.paced import CONFIG, LATENCY_MS, REQUEST_LIMIT, RPM, forget, pools, submit, tenant_made
from bench.stack import stack
from tests.gateway import Gateway, line

JOBS = {"x": 1_500, "y": 300}
LOOKS, EVERY_SECONDS, EACH = 12, 2.0, 12
MOST = 0.25
SHORTEST = 1.0
"""Of a wait shorter than this, in seconds, an error counts as if it were so long."""


async def run(directory: Path, database_url: str, redis_url: str) -> list[Figure]:
    await forget(redis_url)
    rng = random.Random(1)
    config = CONFIG.replace("LIMITS", f"{{rpm: {RPM}}}")
    async with stack(
        directory, database_url, redis_url, ("api", "maintain"), config=config, SLUICE_LOG_LEVEL="info"
    ) as gateway:
        await gateway.start("upstream", *REQUEST_LIMIT)
        await pools(gateway, {"first": "simulated"})
        for tenant in JOBS:
            await tenant_made(gateway, tenant)
        waiting = {tenant: await _submitted(gateway, tenant, number, rng) for tenant, number in JOBS.items()}
        said: list[tuple[str, str, float, float]] = []
        for _ in range(LOOKS):
            await asyncio.sleep(EVERY_SECONDS)
            for tenant, ids in waiting.items():
                said += [one for id_ in rng.sample(ids, EACH) if (one := await _asked(gateway, tenant, id_))]
        errors = [await _error(gateway, *one) for one in said]
    p80 = quantile(errors, 0.8)
    text = f"ETA p80 of the error {p80:.0%} (≤ {MOST:.0%}), median {quantile(errors, 0.5):.0%}, of {len(errors)} asked"
    return [Figure(text, len(errors) >= LOOKS and p80 <= MOST)]


async def _submitted(gateway: Gateway, tenant: str, number: int, rng: random.Random) -> list[str]:
    priorities = ("bulk", "standard")
    jobs = [line(priority=rng.choice(priorities), simulate={"latency_ms": LATENCY_MS}) for _ in range(number)]
    batch = await submit(gateway, jobs, tenant=tenant)
    found: list[str] = []
    while len(found) < number:
        after = f"&after={found[-1]}" if found else ""
        path = f"/v1/jobs?batch_id={batch}&limit=100{after}"
        _, page, _ = await gateway.ask("GET", path, headers={"X-Sluice-Tenant": tenant})
        found += [job["id"] for job in page["data"]]
    return found


async def _asked(gateway: Gateway, tenant: str, id_: str) -> tuple[str, str, float, float] | None:
    """Return a job's id, its ETA and when it was said; None where it does not wait or nobody knows."""
    _, job, _ = await gateway.ask("GET", f"/v1/jobs/{id_}", headers={"X-Sluice-Tenant": tenant})
    seconds = job["queue"] and job["queue"]["eta_seconds"]
    return None if seconds is None else (tenant, id_, seconds, time.time())


async def _error(gateway: Gateway, tenant: str, id_: str, eta: float, at: float) -> float:
    while True:
        _, job, _ = await gateway.ask("GET", f"/v1/jobs/{id_}?wait=60", headers={"X-Sluice-Tenant": tenant})
        if job["started_at"]:
            waited = datetime.fromisoformat(job["started_at"]).timestamp() - at
            return abs(eta - waited) / max(waited, SHORTEST)
