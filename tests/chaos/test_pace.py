"""A provider's limit while one of two worker processes is killed: nobody is told 429, and nothing is lost."""

from pathlib import Path

import aiohttp
import pytest

from tests.chaos.truth import batch_completed, so_many_completed, submit_batch, truth
from tests.gateway import gateway

pytestmark = pytest.mark.chaos

JOBS = 500
CONFIG = """
providers:
  simulated: {kind: simulated, base_url: UPSTREAM/v1, timeout: 30s, limits: {rpm: 3000, burst: 10}}
"""


async def test_the_pace_is_kept_when_a_worker_is_killed(tmp_path: Path, database: str, redis: str) -> None:
    async with gateway(tmp_path, database, redis, parts=("api", "maintain"), config=CONFIG) as sluice:
        # The provider takes more at once than it is asked to: a machine that stalls sends what it held back together.
        await sluice.start("upstream", "--rpm", "3000", "--burst", "50")
        for name in ("first", "second"):
            await sluice.start(name, "simulated")
        batch = await submit_batch(sluice, [200] * JOBS)
        await so_many_completed(sluice, batch, JOBS // 4)
        await sluice.kill("first")
        await batch_completed(sluice, batch, seconds=60)
        url = f"http://127.0.0.1:{sluice.upstream_port}/stats"
        async with aiohttp.ClientSession() as client, client.get(url) as answer:
            counted = await answer.json()
        found = await truth(sluice, database)
    assert counted["by_status"].keys() == {"200"}
    lost = sum(row["status"] == "lost" for rows in found.attempts.values() for row in rows.values())
    assert 0 < lost < 50
    assert counted["calls"] <= JOBS + lost
    assert {row["status"] for row in found.jobs.values()} == {"completed"}
