"""A front door that is killed while clients submit."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from tests.chaos.truth import fetch, truth
from tests.gateway import Gateway, gateway, line, until

pytestmark = pytest.mark.chaos

CLIENTS = 8
EACH = 60


async def submit(sluice: Gateway, key: str) -> str:
    """Submit a job under an idempotency key as a client would: again and again until it is accepted."""
    async with asyncio.timeout(30):
        while True:
            try:
                status, job, _ = await sluice.ask(
                    "POST", "/v1/jobs", line(text=key, custom_id=key), headers={"Idempotency-Key": key}
                )
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(0.01)
                continue
            if status == 503:
                continue
            assert status in (200, 202), job  # 200: a replay of a job that has ended
            return str(job["id"])


async def test_every_accepted_job_exists_once(tmp_path: Path, database: str, redis: str) -> None:
    async with gateway(tmp_path, database, redis, parts=("upstream", "api", "maintain", "simulated")) as sluice:
        accepted: dict[str, str] = {}

        async def client(name: int) -> None:
            for number in range(EACH):
                key = f"{name}-{number}"
                accepted[key] = await submit(sluice, key)

        async def so_many() -> int:
            return len(accepted)

        async with asyncio.TaskGroup() as clients:
            for name in range(CLIENTS):
                clients.create_task(client(name))
            for number in (100, 250):
                await until(so_many, lambda found, number=number: found >= number, what=f"{number} accepted")
                assert await so_many() < CLIENTS * EACH
                await sluice.kill("api")
                await sluice.start("api")

        assert len(set(accepted.values())) == CLIENTS * EACH
        for id_ in accepted.values():
            assert (await sluice.ended(id_))["status"] == "completed"
        found = await truth(sluice, database)
        assert {row["custom_id"]: id_ for id_, row in found.jobs.items()} == accepted
        assert [found.called(id_) for id_ in found.jobs] == [1] * len(found.jobs)
        keys = await fetch(database, "SELECT key, object_id FROM idempotency_keys")
        assert {row["key"]: f"job_{row['object_id'].hex}" for row in keys} == accepted
