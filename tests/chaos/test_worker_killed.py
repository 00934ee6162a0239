"""Workers that are killed in the middle of their calls."""

import random
from pathlib import Path

import pytest

from tests.chaos.truth import batch_completed, so_many_completed, submit_batch, truth
from tests.gateway import gateway

pytestmark = pytest.mark.chaos

JOBS = 300
SLOTS = 20


async def test_what_a_killed_worker_held_is_run_again_and_nothing_else(
    tmp_path: Path, database: str, redis: str
) -> None:
    rng = random.Random(1)
    parts = ("upstream", "api", "maintain")
    env = {"SLUICE_WORKER_SLOTS": str(SLOTS)}
    async with gateway(tmp_path, database, redis, parts=parts, env=env) as sluice:
        await sluice.start("first", "simulated")
        await sluice.start("second", "simulated")
        batch = await submit_batch(sluice, [rng.uniform(100, 300) for _ in range(JOBS)])

        await so_many_completed(sluice, batch, 50)
        await sluice.kill("first")
        await sluice.start("third", "simulated")
        await so_many_completed(sluice, batch, 150)
        await sluice.kill("second")
        await sluice.start("fourth", "simulated")
        await batch_completed(sluice, batch, seconds=60)

        found = await truth(sluice, database)
        assert len(found.jobs) == JOBS
        lost = [row for rows in found.attempts.values() for row in rows.values() if row["status"] == "lost"]
        assert 2 <= len(lost) <= 2 * SLOTS  # mid-call: the kills came in the thick of it
        assert all(row["charged"] for row in lost)
        for id_, rows in found.attempts.items():
            # Given back: by a worker that was stalled for so long that it lost its lease, which costs no try.
            assert {row["status"] for _, row in sorted(rows.items())[:-1]} <= {"lost", "released"}, id_
            if len(rows) == 1:
                assert found.called(id_) == 1
        assert sum(found.called(id_) for id_ in found.jobs) > JOBS
