"""A claim takes what is still queued, each job once, and gives it the next attempt number."""

import asyncio
from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from shared import ids
from shared.db import claims, jobs, leases
from shared.db import engine as db
from tests.db.conftest import TENANT, apply, claimed, end, row, stored


async def test_a_claim_puts_a_job_in_progress_and_returns_all_it_takes_to_run_it(engine: db.Engine) -> None:
    [job] = await stored(engine, 1, deadline=datetime.now(UTC) + timedelta(hours=1), body=b'{"text":"secret"}')
    lease, [claim] = await claimed(engine, [job.id])
    assert (claim.id, claim.tenant_id, claim.batch_id, claim.url) == (job.id, TENANT, None, job.url)
    assert (claim.provider, claim.upstream_model, claim.body) == ("p", "m", b'{"text":"secret"}')
    assert (claim.attempt, claim.charged, claim.deadline) == (1, 0, job.deadline)
    assert "secret" not in repr(claim)
    seen = await row(engine, job)
    assert (seen.status, seen.attempt, seen.lease_id) == ("in_progress", 1, lease)
    assert seen.started_at == seen.claimed_at == claim.claimed_at


async def test_only_what_is_queued_comes_back(engine: db.Engine) -> None:
    ended, held, overdue, queued, asked = await stored(engine, 5)
    _, [claim] = await claimed(engine, [ended.id])
    assert await apply(engine, end(claim)) == ["completed"]
    await claimed(engine, [held.id])
    _, [claim] = await claimed(engine, [asked.id])
    async with db.transaction(engine) as connection:
        await connection.execute(
            text("UPDATE jobs SET deadline = now() - interval '1 s' WHERE id = :id"), {"id": overdue.id}
        )
        await connection.execute(
            text("UPDATE jobs SET status = 'queued', lease_id = NULL, cancel_asked_at = now() WHERE id = :id"),
            {"id": asked.id},
        )
    proposed = [ended.id, held.id, overdue.id, queued.id, asked.id, ids.new_id(), queued.id]
    _, taken = await claimed(engine, proposed)
    assert [one.id for one in taken] == [queued.id]
    assert (await row(engine, queued)).attempt == 1


async def test_each_job_is_claimed_by_one(engine: db.Engine) -> None:
    made = [job.id for job in await stored(engine, 200)]
    found = await asyncio.gather(*(claimed(engine, made[::step]) for step in (1, -1, 1, -1)))
    taken = [claim.id for _, group in found for claim in group]
    assert sorted(taken) == sorted(made)
    async with db.transaction(engine) as connection:
        rows = (await connection.execute(text("SELECT id, lease_id FROM jobs"))).all()
    assert dict(map(tuple, rows)) == {claim.id: lease for lease, group in found for claim in group}


async def test_repeating_a_claim_takes_the_same_jobs_under_a_new_fence(engine: db.Engine) -> None:
    [job] = await stored(engine, 1)
    lease, [first] = await claimed(engine, [job.id])
    async with db.transaction(engine) as connection:
        [second] = await claims.claim(connection, lease, "p", {job.id: "m"})
    assert (first.attempt, second.attempt) == (1, 2)
    assert await apply(engine, end(first)) == [None]
    assert await apply(engine, end(second)) == ["completed"]


async def test_the_first_start_is_kept_and_the_fence_grows_with_every_claim(engine: db.Engine) -> None:
    [job] = await stored(engine, 1)
    _, [first] = await claimed(engine, [job.id])
    await apply(engine, end(first, "queued"))
    _, [second] = await claimed(engine, [job.id])
    assert (second.attempt, second.charged) == (2, 1)
    seen = await row(engine, job)
    assert seen.started_at == first.claimed_at < seen.claimed_at == second.claimed_at


async def test_a_lease_and_its_claims_are_gone_together_when_the_transaction_fails(engine: db.Engine) -> None:
    [job] = await stored(engine, 1)
    lease = ids.new_id()
    try:
        async with db.transaction(engine) as connection:
            await leases.open_(connection, lease, worker="w", provider="p", seconds=60)
            assert len(await claims.claim(connection, lease, "p", {job.id: "m"})) == 1
            raise LookupError
    except LookupError:
        pass
    async with db.transaction(engine) as connection:
        again = await jobs.get(connection, TENANT, job.id)
    assert again is not None
    assert (again.status, again.attempt, again.lease_id) == ("queued", 0, None)
