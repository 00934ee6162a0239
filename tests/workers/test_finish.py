"""What was paid for is written: a database that refuses for now is waited for, one that refuses for good is obeyed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from sqlalchemy import text

from shared import queue
from shared.db import engine as db
from shared.db import jobs
from shared.queue import Queue
from tests.db.conftest import TENANT, claimed, end, stored
from workers.finish import Finisher


@pytest.fixture
async def engine(database: str) -> AsyncIterator[db.Engine]:
    made = db.create(database, pool_size=8, name="test")
    yield made
    await made.dispose()


@pytest.fixture
async def line(redis: str) -> AsyncIterator[Queue]:
    client = queue.connect(redis)
    yield Queue(client)
    await client.aclose(close_connection_pool=True)


async def test_a_time_out_in_the_database_delays_the_finish_and_fails_no_job(engine: db.Engine, line: Queue) -> None:
    [job] = await stored(engine, 1)
    _, [claim] = await claimed(engine, [job.id])
    async with engine.connect() as blocking:
        database = (await blocking.execute(text("SELECT current_database()"))).scalar_one()
        await blocking.execute(text(f'ALTER DATABASE "{database}" SET lock_timeout = 100'))
        await blocking.commit()
        await blocking.execute(text("SELECT FROM jobs FOR UPDATE"))
        impatient = db.create(
            engine.url.set(drivername="postgresql").render_as_string(hide_password=False), pool_size=2, name="impatient"
        )
        finishing = asyncio.create_task(Finisher(impatient, line).finish(end(claim)))
        await asyncio.wait([finishing], timeout=1)
        assert not finishing.done()
    async with asyncio.timeout(10):
        assert (await finishing).status == "completed"
    await impatient.dispose()


async def test_one_that_cannot_be_stored_fails_alone(engine: db.Engine, line: Queue) -> None:
    made = await stored(engine, 5)
    _, held = await claimed(engine, [job.id for job in made])
    changes = [end(claim) for claim in held]
    assert changes[2].attempt_end is not None
    changes[2] = replace(changes[2], attempt_end=replace(changes[2].attempt_end, upstream_request_id="a\0b"))
    finisher = Finisher(engine, line)
    applied = await asyncio.gather(*(finisher.finish(change) for change in changes))
    expected = ["completed", "completed", "failed", "completed", "completed"]
    assert [one.status for one in applied] == expected
    async with db.transaction(engine) as connection:
        rows = [await jobs.get(connection, TENANT, claim.id) for claim in held]
    assert [one.status for one in rows if one is not None] == expected
