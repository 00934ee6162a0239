"""A worker that is alive but hears and says nothing for longer than its lease."""

import signal
from pathlib import Path

import pytest

from tests.chaos.truth import fetch, truth
from tests.gateway import gateway, until

pytestmark = pytest.mark.chaos


async def test_its_late_answer_is_booked_and_changes_nothing_else(tmp_path: Path, database: str, redis: str) -> None:
    parts = ("upstream", "api", "maintain", "simulated")
    async with gateway(tmp_path, database, redis, parts=parts) as sluice:

        async def called() -> int:
            return len(sluice.calls())

        id_ = await sluice.submit(simulate={"latency_ms": 2_000})
        await until(called, what="called")
        stopped = sluice.children["simulated"]
        stopped.send_signal(signal.SIGSTOP)
        await sluice.start("other", "simulated")
        await until(called, lambda number: number == 2, what="called again by another worker")
        stopped.send_signal(signal.SIGCONT)
        ended = await sluice.ended(id_)

        async def booked() -> list[int | None]:
            rows = await fetch(database, "SELECT input_tokens FROM attempts ORDER BY number")
            return [row["input_tokens"] for row in rows]

        assert all(await until(booked, lambda tokens: len(tokens) == 2 and all(tokens), what="both calls booked"))
        found = await truth(sluice, database)
        assert [row["status"] for _, row in sorted(found.attempts[id_].items())] == ["lost", "completed"]
        assert (ended["status"], found.jobs[id_]["charged"]) == ("completed", 2)

        await sluice.kill("other")
        again = await sluice.submit()  # the worker that had been cut off goes on under a new lease
        assert (await sluice.ended(again))["attempts"] == 1
