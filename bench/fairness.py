"""W5. A tenant with a hundred jobs comes while another has tens of thousands waiting in the same lane."""

import statistics
from pathlib import Path

from bench.figures import Figure
from bench.paced import CONFIG, LATENCY_MS, REQUEST_LIMIT, RPM, ended, forget, lines, pools, stats, submit, tenant_made
from bench.stack import stack
from tests.gateway import Gateway, until

BACKLOG, PAGE = 50_000, 10_000
NEWCOMERS, JOBS = 3, 100
ALONE = JOBS * 60 / (RPM / 2) + LATENCY_MS / 1000
"""The seconds that a newcomer's jobs take at half of the rate, alone."""
MOST = 1.3


async def run(directory: Path, database_url: str, redis_url: str) -> list[Figure]:
    await forget(redis_url)
    config = CONFIG.replace("LIMITS", f"{{rpm: {RPM}}}")
    async with stack(
        directory, database_url, redis_url, ("api", "maintain"), config=config, SLUICE_LOG_LEVEL="info"
    ) as gateway:
        await gateway.start("upstream", *REQUEST_LIMIT)
        await pools(gateway, {"first": "simulated"})
        for name in ("x", *(f"y{number}" for number in range(NEWCOMERS))):
            await tenant_made(gateway, name)
        for _ in range(BACKLOG // PAGE):
            await submit(gateway, lines(PAGE), tenant="x")
        before = await _flowing(gateway)
        found = [
            await ended(gateway, lines(JOBS), patience=10 * ALONE, tenant=f"y{number}") for number in range(NEWCOMERS)
        ]
        counted = await stats(gateway.upstream_port)
    took = [seconds for _, seconds in found]
    ratio = statistics.median(took) / ALONE
    shown = ", ".join(f"{one:.2f}" for one in took)
    text = (
        f"W5 {ratio:.2f} x as long as alone at half the rate (≤ {MOST}): {JOBS} jobs behind {BACKLOG - before:,} in "
        f"{shown} s against {ALONE:.2f}, {counted['by_status'].get('429', 0)} x 429"
    )
    return [Figure(text, ratio <= MOST and all(completed == JOBS for completed, _ in found))]


async def _flowing(gateway: Gateway) -> int:
    """Wait until the limit alone holds the backlog back; return how many of its jobs are done."""

    async def answered() -> int:
        return int((await stats(gateway.upstream_port))["answered"])

    return await until(answered, lambda count: count > 3 * RPM / 60, what="jobs flowing")
