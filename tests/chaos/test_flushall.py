"""A Redis that is emptied under load."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.chaos.truth import batch_completed, so_many_completed, submit_batch, truth
from tests.gateway import gateway, until

pytestmark = pytest.mark.chaos

JOBS = 1_000
SLOTS = 20
CONFIG = """
providers:
  simulated: {kind: simulated, base_url: UPSTREAM/v1, timeout: 30s, limits: {concurrency: 100}}
"""


async def test_queued_jobs_come_back_and_running_ones_are_left_alone(tmp_path: Path, database: str, redis: str) -> None:
    parts = ("upstream", "api", "maintain", "simulated")
    async with (
        gateway(
            tmp_path, database, redis, parts=parts, config=CONFIG, env={"SLUICE_WORKER_SLOTS": str(SLOTS)}
        ) as sluice,
        Redis.from_url(redis, socket_timeout=10) as client,
    ):
        # The first calls take longer than a lease, so that Redis has the time to give them to somebody else.
        batch = await submit_batch(sluice, [6_000] * SLOTS + [5] * (JOBS - SLOTS))

        async def called() -> int:
            return len(sluice.calls())

        await until(called, lambda number: number == SLOTS, what="all slots busy")
        assert await client.zcard("sluice:simulated:waiting:small:default") == JOBS - SLOTS
        await client.flushall()
        await until(
            lambda: client.zcard("sluice:simulated:waiting:small:default"), lambda n: n == JOBS - SLOTS, what="refilled"
        )

        await so_many_completed(sluice, batch, 200)
        await client.flushall()  # once more, with many being claimed and finished
        await batch_completed(sluice, batch, seconds=60)

        found = await truth(sluice, database)
        assert [found.called(id_) for id_ in found.jobs] == [1] * JOBS
        # One that was claimed just then may go back, at no cost; none was lost.
        assert {row["status"] for rows in found.attempts.values() for row in rows.values()} <= {"completed", "released"}
        assert {row["charged"] for row in found.jobs.values()} == {1}
        assert await client.zcard("sluice:simulated:waiting:small:default") == 0
