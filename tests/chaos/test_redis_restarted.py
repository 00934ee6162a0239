"""A Redis that crashes and comes back under load."""

import random
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.embedded import redis as embedded_redis
from shared.embedded.server import Server
from tests.chaos.truth import batch_completed, counts, logged, so_many_completed, submit_batch, told, truth
from tests.gateway import gateway, line, until

pytestmark = pytest.mark.chaos

JOBS = 300


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    with tempfile.TemporaryDirectory(prefix="sluice-chaos-") as name:
        async with embedded_redis.running(Path(name)) as running:
            yield running


async def test_nothing_is_lost_and_nothing_is_called_twice(tmp_path: Path, database: str, server: Server) -> None:
    env = {"SLUICE_WORKER_SLOTS": "20"}
    parts = ("upstream", "api", "maintain", "simulated")
    async with gateway(tmp_path, database, server.url, parts=parts, env=env) as sluice:
        rng = random.Random(3)
        batch = await submit_batch(sluice, [rng.uniform(100, 300) for _ in range(JOBS)])
        for number in (60, 180):
            await so_many_completed(sluice, batch, number)
            noticed = told(sluice, "simulated", "pool.waited")
            await server.child.kill()
            before = len(sluice.calls())
            assert before < JOBS

            async def running_ended(before: int = before) -> bool:
                return (await counts(sluice, batch))["completed"] >= before

            await until(running_ended, what="what was running is finished without Redis")
            await logged(sluice, "simulated", "pool.waited", more_than=noticed)
            assert (await sluice.ask("GET", "/readyz"))[0] == 503
            await server.child.start()
        await batch_completed(sluice, batch, seconds=60)

        found = await truth(sluice, database)
        assert len(found.jobs) == JOBS
        assert [found.called(id_) for id_ in found.jobs] == [1] * JOBS
        assert {row["charged"] for row in found.jobs.values()} == {1}


async def test_a_job_accepted_as_redis_goes_away_runs_when_it_is_back(
    tmp_path: Path, database: str, server: Server
) -> None:
    parts = ("upstream", "api", "maintain", "simulated")
    async with gateway(tmp_path, database, server.url, parts=parts) as sluice:
        await server.child.kill()
        id_ = await sluice.submit()  # nobody knew yet: it is on disk, and that is what 202 says
        status, refused, headers = await sluice.ask("POST", "/v1/jobs", line())
        assert (status, refused["error"]["code"]) == (503, "unavailable")
        assert 0 < int(headers["Retry-After"]) <= 60
        await server.child.start()
        assert (await sluice.ended(id_))["status"] == "completed"
        assert (await sluice.ended(await sluice.submit()))["status"] == "completed"
        found = await truth(sluice, database)
        assert [found.called(id_) for id_ in found.jobs] == [1, 1]
