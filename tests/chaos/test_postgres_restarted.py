"""A Postgres that crashes and recovers under load."""

import random
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.db import migrate
from shared.embedded import postgres
from shared.embedded.server import Server
from tests.chaos.truth import batch_completed, logged, so_many_completed, submit_batch, told, truth
from tests.gateway import gateway, line, until

pytestmark = pytest.mark.chaos

JOBS = 300


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    with tempfile.TemporaryDirectory(prefix="sluice-chaos-") as name:
        Path(name).chmod(0o711)  # where we are root, Postgres's user must get through
        async with postgres.running(Path(name)) as running:
            await migrate.upgrade(running.url)
            yield running


async def test_nothing_is_lost_and_what_was_paid_for_is_not_called_again(
    tmp_path: Path, server: Server, redis: str
) -> None:
    # Leases outlive the outage here: whether a worker is cut off for longer than its lease is another test.
    env = {"SLUICE_WORKER_SLOTS": "20", "SLUICE_LEASE": "20", "SLUICE_RENEWAL": "1"}
    parts = ("upstream", "api", "maintain", "simulated")
    async with gateway(tmp_path, server.url, redis, parts=parts, env=env) as sluice:
        rng = random.Random(2)
        batch = await submit_batch(sluice, [rng.uniform(100, 300) for _ in range(JOBS)])
        for number in (60, 180):
            await so_many_completed(sluice, batch, number)
            noticed = told(sluice, "simulated", "finish.delayed")
            await server.child.kill()
            status, refused, headers = await sluice.ask("POST", "/v1/jobs", line())
            assert (status, refused["error"]["code"]) == (503, "unavailable")
            assert 0 < int(headers["Retry-After"]) <= 60
            assert (await sluice.ask("GET", "/readyz"))[0] == 503
            await logged(
                sluice, "simulated", "finish.delayed", more_than=noticed
            )  # paid for, and nowhere to write it down
            assert len(sluice.calls()) < JOBS
            await server.child.start()
        await batch_completed(sluice, batch, seconds=60)

        found = await truth(sluice, server.url)
        assert len(found.jobs) == JOBS
        assert [found.called(id_) for id_ in found.jobs] == [1] * JOBS

        async def ready() -> int:
            return (await sluice.ask("GET", "/readyz"))[0]

        await until(ready, lambda status: status == 200, what="ready again")
