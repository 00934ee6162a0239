"""Hard budgets under concurrency: eight processes, answers of unknown length, and never more than a dollar is spent.

Each run is another tenant's, with lengths of its own from a seed.
"""

import asyncio
import random
from pathlib import Path

from sqlalchemy import text

from bench.figures import Figure
from bench.stack import stack
from shared.db import budgets
from shared.db import engine as db
from shared.db.budgets import NewBudget
from tests.gateway import Gateway, line

RUNS, PROCESSES, JOBS = 50, 8, 200
LIMIT = 10**9
SHORTEST, LONGEST = 100, 1_200
LATENCY_MS = 20

# A token of output costs 10,000 nano-dollars: 200 answers of 650 tokens come to 1.3 dollars.
CONFIG = """
providers:
  simulated:
    kind: simulated
    base_url: UPSTREAM/v1
    limits: {concurrency: 200}
    models:
      dear: {price: {input: 1, output: 10}, max_output: 4096}
"""


async def run(directory: Path, database_url: str, redis_url: str) -> list[Figure]:
    async with stack(directory, database_url, redis_url, ("upstream", "api", "maintain"), config=CONFIG) as gateway:
        for number in range(PROCESSES):
            await gateway.start(f"pool{number}", "simulated")
        engine = db.create(database_url, pool_size=1, name="bench")
        try:
            spent = [await _spent(gateway, engine, seed) for seed in range(RUNS)]
        finally:
            await engine.dispose()
    least, most = min(spent) / LIMIT, max(spent) / LIMIT
    return [
        Figure(
            f"{RUNS} runs of {JOBS} jobs, {PROCESSES} processes: at most {most:.4f} of a dollar spent (≤ 1)", most <= 1
        ),
        Figure(f"and at least {least:.4f} (≥ 0.97), median {sorted(spent)[RUNS // 2] / LIMIT:.4f}", least >= 0.97),
    ]


async def _spent(gateway: Gateway, engine: db.Engine, seed: int) -> int:
    rng = random.Random(seed)
    _, tenant, _ = await gateway.ask("POST", "/v1/admin/tenants", {"name": f"run-{seed}"})
    async with db.transaction(engine) as connection:
        await budgets.insert(connection, NewBudget(tenant_id=tenant["id"], limit_nanos=LIMIT, period="total"))
    lines = [
        line(
            model="simulated/dear",
            simulate={"output_tokens": rng.randint(SHORTEST, LONGEST), "latency_ms": LATENCY_MS, "key": f"{seed}/{n}"},
        )
        for n in range(JOBS)
    ]
    headers = {"X-Sluice-Tenant": tenant["id"]}
    _, batch, _ = await gateway.ask("POST", "/v1/batches", {"requests": lines}, headers=headers)
    while True:
        _, seen, _ = await gateway.ask("GET", f"/v1/batches/{batch['id']}", headers=headers)
        counts = seen["request_counts"]
        if counts["completed"] + counts["failed"] == JOBS:
            break
        await asyncio.sleep(0.05)
    query = text("SELECT spent_nanos, reserved_nanos FROM budget_windows WHERE tenant_id = :tenant")
    async with db.transaction(engine) as connection:
        window = (await connection.execute(query, {"tenant": tenant["id"]})).one()
    assert window.reserved_nanos == 0
    return int(window.spent_nanos)
