"""A job in progress is under a lease that is there, or it is given back."""

from sqlalchemy import text

from shared import ids
from shared.db import claims, jobs, leases, transitions
from shared.db import engine as db
from tests.db.conftest import TENANT, claimed, end, stored


async def test_nothing_is_claimed_under_a_lease_that_is_gone(engine: db.Engine) -> None:
    [job] = await stored(engine, 1)
    async with db.transaction(engine) as connection:
        assert await claims.claim(connection, ids.new_id(), "p", {job.id: "m"}) == []
    _, [claim] = await claimed(engine, [job.id])
    assert claim.attempt == 1


async def test_jobs_under_no_lease_are_lost_too(engine: db.Engine) -> None:
    made = await stored(engine, 3)
    lease, _ = await claimed(engine, [made[0].id])
    ended, _ = await claimed(engine, [made[1].id], seconds=0)
    await claimed(engine, [made[2].id])
    async with db.transaction(engine) as connection:
        await connection.execute(text("DELETE FROM leases WHERE id = :id"), {"id": lease})
        expired, held = await leases.lost(connection, limit=10)
    assert expired == [ended]
    assert {job.id for job in held} == {made[0].id, made[1].id}


async def test_opening_a_lease_twice_is_opening_it_once(engine: db.Engine) -> None:
    lease = ids.new_id()
    for _ in range(2):
        async with db.transaction(engine) as connection:
            await leases.open_(connection, lease, worker="w", provider="p", seconds=10)
    async with db.transaction(engine) as connection:
        await leases.close(connection, lease)
        assert await leases.renew(connection, lease, seconds=10, held=[]) is None


async def test_a_renewal_tells_what_is_asked_to_stop_and_what_the_worker_does_not_know(engine: db.Engine) -> None:
    kept, stopped, forgotten, fresh = await stored(engine, 4)
    lease, _ = await claimed(engine, [job.id for job in (kept, stopped, forgotten, fresh)])
    async with db.transaction(engine) as connection:
        await jobs.ask_cancel(connection, TENANT, stopped.id)
        await connection.execute(
            text("UPDATE jobs SET claimed_at = now() - interval '11 s' WHERE id = ANY(:ids)"),
            {"ids": [kept.id, stopped.id, forgotten.id]},
        )
        found = await leases.renew(connection, lease, seconds=10, held=[kept.id, stopped.id])
    assert found is not None
    # One that was claimed a moment ago may still be on its way to the worker.
    assert {(one.id, one.cancelled) for one in found} == {(stopped.id, True), (forgotten.id, False)}


async def test_a_lease_runs_out_unless_it_is_renewed(engine: db.Engine) -> None:
    made = await stored(engine, 2)
    late, [claim] = await claimed(engine, [made[0].id], seconds=0)
    silent, _ = await claimed(engine, [made[1].id], seconds=0)
    async with db.transaction(engine) as connection:
        assert await leases.renew(connection, late, seconds=10, held=[claim.id]) == []
    async with db.transaction(engine) as connection:
        expired, held = await leases.lost(connection, limit=10)
        assert (expired, [job.id for job in held]) == ([silent], [made[1].id])
        await leases.remove(connection, expired)
        # A job is still under it, so it stays.
        assert (await leases.lost(connection, limit=10))[0] == [silent]


async def test_one_keeper_at_a_time_gives_back_what_a_lease_held(engine: db.Engine) -> None:
    [job] = await stored(engine, 1)
    lease, [claim] = await claimed(engine, [job.id], seconds=0)
    async with engine.begin() as first, engine.begin() as second:
        assert (await leases.lost(first, limit=10))[0] == [lease]
        assert await leases.lost(second, limit=10) == ([], [])
        await transitions.apply(first, [end(claim, "queued")])
        await leases.remove(first, [lease])
    async with db.transaction(engine) as connection:
        assert await leases.lost(connection, limit=10) == ([], [])
        assert await leases.renew(connection, lease, seconds=10, held=[]) is None


async def test_a_lease_with_jobs_does_not_close(engine: db.Engine) -> None:
    [job] = await stored(engine, 1)
    lease, [claim] = await claimed(engine, [job.id])
    async with db.transaction(engine) as connection:
        await leases.close(connection, lease)
        assert await leases.renew(connection, lease, seconds=10, held=[claim.id]) == []
        await transitions.apply(connection, [end(claim)])
        await leases.close(connection, lease)
        assert await leases.renew(connection, lease, seconds=10, held=[]) is None
