"""Letting jobs go that waited for others: where the answers do not fit, and where their batch is cancelled."""

from collections.abc import AsyncIterator

import orjson
import pytest

from shared import queue
from shared.db import batches, dependencies
from shared.db import engine as db
from shared.db.dependencies import Dependency
from shared.db.jobs import NewJob
from shared.queue import Queue
from tests.db.conftest import TENANT, apply, claimed, end, row, stored
from workers import dependants

ANSWER = orjson.dumps({"choices": [{"message": {"content": "x" * 1_000}}]})


@pytest.fixture
async def engine(database: str) -> AsyncIterator[db.Engine]:
    made = db.create(database, pool_size=4, name="test")
    yield made
    await made.dispose()


@pytest.fixture
async def line(redis: str) -> AsyncIterator[Queue]:
    client = queue.connect(redis)
    yield Queue(client)
    await client.aclose(close_connection_pool=True)


async def waited(engine: db.Engine, *, asks: int) -> tuple[NewJob, NewJob]:
    """Store two that wait for one, `a`, which completes, and whose answer the first asks for so often."""
    body = orjson.dumps({"model": "m", "x": "{{jobs.a.output}}" * asks})
    first, second, needed = await stored(engine, 3, in_batch=True, body=body)
    async with db.transaction(engine) as connection:
        await dependencies.insert(connection, [Dependency(needed.id, one.id, TENANT, False) for one in (first, second)])
        await connection.exec_driver_sql(
            f"UPDATE jobs SET custom_id = CASE id WHEN '{needed.id}' THEN 'a' END,"
            f" waits_for = CASE id WHEN '{needed.id}' THEN NULL ELSE 1 END"
        )
        await connection.exec_driver_sql(
            f"UPDATE payloads SET body = '{{}}' WHERE job_id IN ('{second.id}', '{needed.id}')"
        )
    _, [claim] = await claimed(engine, [needed.id])
    await apply(engine, end(claim, result=ANSWER))
    return first, second


async def test_who_asks_for_too_much_fails_and_holds_nobody_up(engine: db.Engine, line: Queue) -> None:
    first, second = await waited(engine, asks=3)
    assert await dependants.let_go(engine, line, most_bytes=2_500) == 2
    failed, freed = await row(engine, first), await row(engine, second)
    assert (failed.status, failed.error["code"]) == ("failed", "dependency_failed")
    assert "2,500 bytes" in failed.error["message"]
    assert (freed.status, freed.waits_for) == ("queued", -1)
    assert await dependants.let_go(engine, line, most_bytes=2_500) == 0


async def test_who_waited_in_a_batch_that_is_cancelled_does_not_run(engine: db.Engine, line: Queue) -> None:
    first, second = await waited(engine, asks=1)
    assert first.batch_id is not None
    async with db.transaction(engine) as connection:
        await batches.ask_cancel(connection, TENANT, first.batch_id)
    await dependants.let_go(engine, line, most_bytes=2_500)
    assert [(await row(engine, one)).status for one in (first, second)] == ["cancelled", "cancelled"]
    async with db.transaction(engine) as connection:
        batch = await batches.get(connection, TENANT, first.batch_id)
    assert batch is not None
    assert (batch.status, batch.completed, batch.cancelled) == ("cancelled", 1, 2)
