"""Workers that are asked to end."""

import signal
from pathlib import Path

import pytest

from tests.chaos.truth import logged, submit_batch, truth
from tests.gateway import Gateway, gateway, until

pytestmark = pytest.mark.chaos

QUICK, SLOW = [500.0] * 5, [2_500.0] * 5


async def test_a_pool_finishes_what_is_quick_and_gives_back_the_rest_free_of_charge(
    tmp_path: Path, database: str, redis: str
) -> None:
    parts = ("upstream", "api", "maintain", "simulated")
    async with gateway(tmp_path, database, redis, parts=parts, env={"SLUICE_SHUTDOWN_GRACE": "1"}) as sluice:
        batch = await submit_batch(sluice, QUICK + SLOW)

        async def called() -> int:
            return len(sluice.calls())

        await until(called, lambda number: number == 10, what="all running")
        child = sluice.children["simulated"]
        await sluice.kill("simulated", signal.SIGTERM)
        assert child.returncode == 0, sluice.logs()

        async def statuses() -> dict[str, int]:
            _, listed, _ = await sluice.ask("GET", f"/v1/jobs?limit=100&batch_id={batch}")
            found = [job["status"] for job in listed["data"]]
            return {status: found.count(status) for status in set(found)}

        assert await statuses() == {"completed": 5, "queued": 5}
        await sluice.start("other", "simulated")
        await until(statuses, lambda found: found == {"completed": 10}, what="completed elsewhere")

        found = await truth(sluice, database)
        for id_, job in found.jobs.items():
            rows = [(row["status"], row["charged"]) for _, row in sorted(found.attempts[id_].items())]
            released = [("released", False)] if int(job["custom_id"]) >= len(QUICK) else []
            assert rows == [*released, ("completed", True)]
            assert found.called(id_) == len(rows)
        assert sluice.upstream_log.read_bytes().count(b'"disconnected"') == len(SLOW)


async def ended_by(sluice: Gateway, name: str, number: signal.Signals) -> int | None:
    child = sluice.children[name]
    await sluice.kill(name, number)
    return child.returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_every_idle_part_ends_at_once(sluice: Gateway, number: signal.Signals) -> None:
    await sluice.ended(await sluice.submit())  # everything has started
    await logged(sluice, "maintain", "tables.tended")
    for name in ("api", "simulated", "deliver", "maintain"):
        assert await ended_by(sluice, name, number) == 0, (name, sluice.logs())


async def test_a_pool_that_waits_for_postgres_ends_when_asked(tmp_path: Path, redis: str) -> None:
    async with gateway(tmp_path, "postgresql://sluice@127.0.0.1:1/none", redis, parts=()) as sluice:
        await sluice.start("simulated", "simulated")
        await logged(sluice, "simulated", "start.delayed")
        assert await ended_by(sluice, "simulated", signal.SIGTERM) == 0, sluice.logs()
