"""What must be true once everything has ended, whatever died on the way: read from Postgres and the upstream's log."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from tests.gateway import Gateway, line, until

TERMINAL = {"completed", "failed", "cancelled", "expired"}


async def fetch(url: str, query: str, *values: object) -> list[asyncpg.Record]:
    """Return the rows of a query, on a connection of its own."""
    connection = await asyncpg.connect(url, timeout=10, command_timeout=20)
    try:
        return list(await connection.fetch(query, *values))
    finally:
        await connection.close(timeout=10)


async def submit_batch(sluice: Gateway, latencies: Sequence[float], **options: Any) -> str:
    """Submit a batch of one job for each latency (in ms); no two requests are the same. Return its id."""
    requests = [
        line(text=f"job {number}", custom_id=str(number), simulate={"latency_ms": latency}, **options)
        for number, latency in enumerate(latencies)
    ]
    status, batch, _ = await sluice.ask("POST", "/v1/batches", {"requests": requests})
    assert status == 202, batch
    return str(batch["id"])


async def counts(sluice: Gateway, batch: str) -> Mapping[str, int]:
    status, found, _ = await sluice.ask("GET", f"/v1/batches/{batch}")
    assert status == 200, found
    return {**found["request_counts"], "done": found["status"] == "completed"}


async def batch_completed(sluice: Gateway, batch: str, *, seconds: float) -> None:
    """Wait until a batch has ended; its counters must say that every job was completed."""
    found = await until(
        lambda: counts(sluice, batch),
        lambda found: found["done"],
        seconds=seconds,
        what=f"batch ended\n{sluice.logs()}",
    )
    assert found["completed"] == found["total"]


async def so_many_completed(sluice: Gateway, batch: str, number: int) -> None:
    await until(lambda: counts(sluice, batch), lambda found: found["completed"] >= number, what=f"{number} completed")


def told(sluice: Gateway, name: str, event: str) -> int:
    """Return how often a part has logged an event."""
    path = sluice.directory / f"{name}.log"
    return path.read_text().count(f'"event": "{event}"') if path.exists() else 0


async def logged(sluice: Gateway, name: str, event: str, *, more_than: int = 0) -> None:
    """Wait until a part has logged an event: how a test knows that it has noticed."""

    async def seen() -> int:
        return told(sluice, name, event)

    await until(seen, lambda number: number > more_than, what=f"{name}: {event}")


@dataclass(frozen=True, slots=True)
class Truth:
    """Every job, its attempts by number, and how often the upstream was called for each."""

    jobs: dict[str, asyncpg.Record]
    attempts: dict[str, dict[int, asyncpg.Record]]
    calls: dict[str, Counter[int]]

    def called(self, job: str) -> int:
        return self.calls[job].total()


async def truth(sluice: Gateway, database: str) -> Truth:
    """Read everything, and hold it against what holds always.

    Every job has ended in one terminal status; one that was completed has one result and one completed attempt, its
    last. An attempt calls the upstream once or, where its worker ended before, not at all, and no call is without its
    attempt. Tries are charged for what was charged.
    """
    jobs = {f"job_{row['id'].hex}": row for row in await fetch(database, "SELECT * FROM jobs")}
    results = Counter(f"job_{row['job_id'].hex}" for row in await fetch(database, "SELECT job_id FROM results"))
    attempts: dict[str, dict[int, asyncpg.Record]] = defaultdict(dict)
    for row in await fetch(database, "SELECT * FROM attempts"):
        attempts[f"job_{row['job_id'].hex}"][row["number"]] = row
    calls: dict[str, Counter[int]] = defaultdict(Counter)
    for call in sluice.calls():
        job, _, number = call["id"].rpartition("-")
        calls[job][int(number)] += 1

    assert calls.keys() <= jobs.keys()
    for id_, job in jobs.items():
        rows, called = attempts[id_], calls[id_]
        assert job["status"] in TERMINAL, id_
        assert results[id_] == (job["status"] == "completed"), id_
        completed = [number for number, row in rows.items() if row["status"] == "completed"]
        assert completed == ([job["attempt"]] if job["status"] == "completed" else []), id_
        assert called.keys() <= rows.keys(), id_
        assert set(called.values()) <= {1}, id_
        for number, row in rows.items():
            assert number in called or row["status"] in ("lost", "released", "cancelled", "expired"), (id_, number)
        assert job["charged"] == sum(row["charged"] for row in rows.values()), id_
        assert max(rows, default=0) <= job["attempt"], id_
    return Truth(jobs, attempts, calls)
