"""One batch of a file, while every process of the gateway is killed at some moment of it."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from shared.db import engine as db
from shared.db import ledger
from tests.chaos.test_webhooks import receiver
from tests.chaos.truth import fetch, truth
from tests.flow.test_batch_files import CONFIG, create, ended, jsonl, look, read, request
from tests.gateway import Gateway, gateway, until

pytestmark = pytest.mark.chaos

ALONE = 270
WAITING = 30
SLOTS = 20
PARTS = ("api", "maintain", "deliver", "first", "second")


def lines(rng: random.Random) -> list[dict[str, Any]]:
    """Return requests in any order: some fail, some wait for two others, and of these some go on without them."""
    made = []
    for number in range(ALONE):
        simulate: dict[str, Any] = {"latency_ms": rng.uniform(50, 300)}
        if number % 15 == 7:
            simulate["fail"] = [{"status": 400}] * 9
        made.append(request(custom_id=f"a{number}", text=f"text {number}", simulate=simulate))
    for number in range(WAITING):
        needs = [f"a{one}" for one in rng.sample(range(ALONE), 2)]
        text = f"{number}: " + "; ".join(f"{{{{jobs.{one}.output}}}}" for one in needs)
        then = "continue" if number % 2 else "fail"
        made.append(request(custom_id=f"w{number}", text=text, depends_on=needs, on_dependency_failure=then))
    rng.shuffle(made)
    return made


async def validating_killed(sluice: Gateway, content: bytes, url: str) -> str:
    """Create a batch and kill the front door in the transaction that stores its jobs; return the batch's id."""
    connection = await asyncpg.connect(sluice.env["SLUICE_DATABASE_URL"])
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE dependencies IN SHARE MODE")  # the last that it writes
            batch = await create(sluice, content, webhook={"url": url})
            blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'dependencies'::regclass"
            await until(lambda: connection.fetchval(blocked), what="validation under way")
            assert (await look(sluice, batch["id"]))["status"] == "validating"
            await sluice.kill("api")
    finally:
        await connection.close()
    await sluice.start("api")
    return str(batch["id"])


async def test_every_line_ends_once_is_billed_once_and_is_told_once(tmp_path: Path, database: str, redis: str) -> None:
    rng = random.Random(7)
    asked = lines(rng)
    needs = {one["custom_id"]: one.get("depends_on", []) for one in asked}
    bad = {one["custom_id"] for one in asked if "fail" in one["body"].get("simulate", {})}
    env = {"SLUICE_WORKER_SLOTS": str(SLOTS)}
    parts = ("upstream", "api", "maintain", "deliver")
    async with receiver() as target, gateway(tmp_path, database, redis, parts=parts, config=CONFIG, env=env) as sluice:

        async def so_many() -> int:
            counted = (await look(sluice, id_))["request_counts"]
            return sum(counted.values()) - int(counted["total"])

        await sluice.start("first", "simulated")
        await sluice.start("second", "simulated")
        id_ = await validating_killed(sluice, jsonl(asked), f"{target.url}/fail/1")
        moments = sorted(rng.sample(range(10, ALONE - 2 * SLOTS), len(PARTS)))
        for moment, part in zip(moments, rng.sample(PARTS, len(PARTS)), strict=True):
            await until(so_many, lambda found, moment=moment: found >= moment, what=f"{moment} ended\n{sluice.logs()}")
            await sluice.kill(part)
            await sluice.start(part, *(["simulated"] if part in ("first", "second") else []))
        batch = await ended(sluice, id_)

        # The first try of its event is refused and the deliverer killed; the next, by another, is of the same event.
        refused = "SELECT FROM deliveries WHERE answer_status = 500"
        await until(lambda: fetch(database, refused), what="the event's first try")
        await sluice.kill("deliver")
        await sluice.start("deliver")
        output, errors = await read(sluice, batch["output_file_id"]), await read(sluice, batch["error_file_id"])
        given = [line["custom_id"] for line in (*output, *errors)]
        assert Counter(given) == Counter(needs.keys())
        strict = {one["custom_id"] for one in asked if one.get("on_dependency_failure") == "fail"}
        failed = bad | {name for name in strict if bad & set(needs[name])}
        assert {line["custom_id"] for line in errors} == failed
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {
            "total": len(asked),
            "completed": len(output),
            "failed": len(errors),
            "cancelled": 0,
            "expired": 0,
        }

        found = await truth(sluice, database)
        assert len(found.jobs) == len(asked)  # what the first front door had stored of them was never committed
        named = {job["custom_id"]: job for job in found.jobs.values()}
        for name, waited_for in needs.items():
            if named[name]["started_at"] is not None:
                assert all(named[one]["finished_at"] <= named[name]["started_at"] for one in waited_for), name
        ended_with_cost = [row for rows in found.attempts.values() for row in rows.values() if row["status"] != "lost"]
        cost = sum(row["cost_nanos"] or 0 for row in ended_with_cost)
        assert Decimal(batch["cost_usd"]) == Decimal(cost) / 10**9
        assert cost == sum(job["cost_nanos"] or 0 for job in found.jobs.values())
        engine = db.create(database, pool_size=1, name="test")
        try:
            async with db.transaction(engine) as connection:
                since = datetime.now(UTC) - timedelta(hours=1)
                assert await ledger.differences(connection, since=since) == []
        finally:
            await engine.dispose()

        await until(target.received, lambda tries: tries >= 2, what="the event's second try")
        [(told, tries)] = target.tries.items()
        assert all(headers["webhook-id"] == told for headers, _ in tries)
        [delivery] = await fetch(database, "SELECT * FROM deliveries")
        assert delivery["type"] == "batch.completed"
