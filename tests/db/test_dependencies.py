"""Counting down what a job waits for, whoever ends, restarts and locks what meanwhile: it never waits for ever."""

import asyncio
from dataclasses import replace
from typing import Any

from sqlalchemy import text

from shared import ids
from shared.db import batches, dependencies, jobs, transitions
from shared.db import engine as db
from shared.db.batches import NewBatch
from shared.db.dependencies import Dependency
from shared.db.jobs import NewJob
from shared.db.transitions import Applied, Transition, ended_queued
from tests.db.conftest import TENANT, apply, claimed, end, new, row
from tests.gateway import until

BLOCKED = text("""
SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
""")
FAILED = '{"code": "dependency_failed", "message": "m"}'


async def pipeline(engine: db.Engine, needs: int) -> tuple[list[NewJob], NewJob]:
    """Store so many jobs and one that waits for all of them."""
    batch = ids.new_id()
    needed = [new(batch_id=batch, custom_id=str(number)) for number in range(needs)]
    waiting = new(batch_id=batch, custom_id="waits", waits_for=needs)
    async with db.transaction(engine) as connection:
        made = NewBatch(id=batch, tenant_id=TENANT, endpoint=waiting.url, total=needs + 1)
        await batches.insert(connection, made)
        await jobs.insert(connection, [*needed, waiting])
        await dependencies.insert(connection, [Dependency(one.id, waiting.id, TENANT, False) for one in needed])
    return needed, waiting


async def blocked(engine: db.Engine) -> None:
    """Wait until somebody waits for a lock."""

    async def looked() -> Any:
        async with engine.connect() as connection:
            return (await connection.execute(BLOCKED)).scalar_one()

    await until(looked)


async def ends(engine: db.Engine, change: Transition) -> list[Applied]:
    return await db.run(engine, lambda connection: transitions.apply(connection, [change]))


async def waits_for(engine: db.Engine, job: NewJob) -> Any:
    return (await row(engine, job)).waits_for


async def test_two_groups_that_end_at_once_both_count(engine: db.Engine) -> None:
    needed, waiting = await pipeline(engine, 2)
    _, claims = await claimed(engine, [one.id for one in needed])
    async with engine.connect() as first:
        applied = await transitions.apply(first, [end(claims[0])])
        second = asyncio.create_task(ends(engine, end(claims[1])))
        await blocked(engine)
        await first.commit()
    assert not applied[0].lets_go
    assert (await second)[0].lets_go
    assert await waits_for(engine, waiting) == 0


async def test_who_is_restarted_while_the_last_one_ends_waits_no_more(engine: db.Engine) -> None:
    [needed], waiting = await pipeline(engine, 1)
    _, [claim] = await claimed(engine, [needed.id])
    await apply(engine, end(claim, "failed"))
    await apply(engine, ended_queued(await row(engine, waiting), "failed", error=FAILED))
    async with db.transaction(engine) as connection:
        await jobs.restart(connection, TENANT, [needed.id])
    _, [claim] = await claimed(engine, [needed.id])
    async with engine.connect() as restarting:
        [again] = await jobs.restart(restarting, TENANT, [waiting.id])
        assert again.waits_for == 1
        ending = asyncio.create_task(ends(engine, end(claim)))
        await blocked(engine)
        await restarting.commit()
    assert (await ending)[0].lets_go
    assert await waits_for(engine, waiting) == 0


async def test_a_late_end_of_who_waits_in_the_same_group_is_no_reason_not_to_count(engine: db.Engine) -> None:
    needed, waiting = await pipeline(engine, 2)
    _, claims = await claimed(engine, [one.id for one in needed])
    stale = ended_queued(await row(engine, waiting), "cancelled")
    await apply(engine, end(claims[0]))
    async with db.transaction(engine) as connection:
        late = [end(claims[1]), replace(stale, attempt=7)]
        applied = await transitions.apply(connection, late)
    assert [one.status for one in applied] == ["completed", None]
    assert await waits_for(engine, waiting) == 0


async def test_restarting_both_has_the_one_wait_for_the_other_again(engine: db.Engine) -> None:
    needed, waiting = await pipeline(engine, 2)
    _, claims = await claimed(engine, [one.id for one in needed])
    await apply(engine, end(claims[0]), end(claims[1], "failed"))
    await apply(engine, ended_queued(await row(engine, waiting), "failed", error=FAILED))
    async with db.transaction(engine) as connection:
        again = await jobs.restart(connection, TENANT, [needed[1].id, waiting.id])
    assert {one.id: one.waits_for for one in again} == {needed[1].id: None, waiting.id: 1}
    _, [claim] = await claimed(engine, [needed[1].id, waiting.id])
    assert claim.id == needed[1].id  # who waits is not claimed
    await apply(engine, end(claim))
    assert await waits_for(engine, waiting) == 0


async def test_who_still_waits_for_others_waits_for_a_restarted_one_too(engine: db.Engine) -> None:
    needed, waiting = await pipeline(engine, 2)
    _, claims = await claimed(engine, [one.id for one in needed])
    await apply(engine, end(claims[0], "failed"))
    async with db.transaction(engine) as connection:
        await jobs.restart(connection, TENANT, [needed[0].id])
    assert await waits_for(engine, waiting) == 2
    await apply(engine, end(claims[1]))
    assert await waits_for(engine, waiting) == 1
