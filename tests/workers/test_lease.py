"""The lease that a pool holds its jobs under: kept, lost, and what is found when it is renewed."""

import time
from collections.abc import AsyncIterator

import pytest

from shared.db import claims, jobs
from shared.db import engine as db
from shared.queue import CANCEL
from tests.gateway import until
from tests.workers.pools import TENANT, Stores, pool, stores, uuid
from workers.maintain import Maintenance


@pytest.fixture
async def held(database: str, redis: str) -> AsyncIterator[Stores]:
    async with stores(database, redis) as opened:
        yield opened


async def called(held: Stores) -> int:
    return len(held.upstream.calls)


async def ask_cancel(held: Stores, job: str) -> None:
    async with db.transaction(held.engine) as connection:
        await jobs.ask_cancel(connection, TENANT, uuid(job))


async def test_a_call_longer_than_the_lease_keeps_its_job(held: Stores, redis: str) -> None:
    maintenance = Maintenance(held.engine, held.queue, max_attempts=5)
    async with pool(held, redis, lease=0.8, renewal=0.2):
        [id_] = await held.submit(latency_ms=2_500)
        await until(lambda: called(held))
        began, lost, scores = time.monotonic(), 0, []

        async def ended() -> bool:
            nonlocal lost
            lost += await maintenance.give_back_lost()
            seconds, micros = await held.queue.redis.time()
            score = await held.queue.redis.zscore("sluice:p:queue:m", uuid(id_).hex)
            if score is not None:
                scores.append(score - seconds * 1000 - micros / 1000)
            return await held.statuses() == ["completed"]

        await until(ended, seconds=10)
        assert time.monotonic() - began > 2
    assert lost == 0
    assert min(scores) > 0  # never due in Redis either
    assert held.upstream.called() == [f"{id_}-1"]
    assert await held.rows("SELECT * FROM leases") == []


async def test_a_lost_lease_stops_the_calls_and_the_worker_goes_on_under_a_new_one(held: Stores, redis: str) -> None:
    maintenance = Maintenance(held.engine, held.queue, max_attempts=5)
    async with pool(held, redis, lease=2, renewal=0.3, slots=2):
        made = await held.submit(2, latency_ms=3_000)
        await until(lambda: called(held), lambda number: number == 2)
        [old] = await held.rows("SELECT id FROM leases")
        await held.rows("UPDATE leases SET expires_at = now() - interval '1 s'")
        assert await maintenance.give_back_lost() == 2
        await until(lambda: called(held), lambda number: number == 4, what="called again")
        assert held.upstream.disconnected == 2
        [new] = await held.rows("SELECT id FROM leases")
        assert new.id != old.id
        await held.completed()
    for id_ in made:
        assert await held.attempts(id_) == [("lost", True), ("completed", True)]
        # What the stopped call may have used is booked on its own attempt.
        [row] = await held.rows(
            "SELECT estimated, input_tokens FROM attempts WHERE job_id = :id AND number = 1", id=uuid(id_)
        )
        assert row.estimated
        assert row.input_tokens > 0


async def test_a_job_it_does_not_know_it_has_is_given_back(held: Stores, redis: str) -> None:
    async with pool(held, redis, lease=1, renewal=0.2):
        [id_] = await held.submit(enqueue=False)
        [lease] = await held.rows("SELECT id FROM leases")
        async with db.transaction(held.engine) as connection:
            [claim] = await claims.claim(connection, lease.id, "p", {uuid(id_): "m"})  # an answer that never arrived
        assert claim.attempt == 1
        await held.completed()
    assert held.upstream.called() == [f"{id_}-2"]
    assert await held.attempts(id_) == [("released", False), ("completed", True)]


async def test_a_cancellation_that_was_announced_is_heard_at_once(held: Stores, redis: str) -> None:
    async with pool(held, redis, lease=61, renewal=20):
        [id_] = await held.submit(latency_ms=30_000)
        await until(lambda: called(held))
        await ask_cancel(held, id_)

        async def cancelled() -> bool:
            await held.queue.announce(CANCEL, [uuid(id_)])
            return await held.statuses() == ["cancelled"]

        await until(cancelled, seconds=5)
        assert held.upstream.disconnected == 1
    assert await held.attempts(id_) == [("cancelled", True)]


async def test_a_cancellation_that_nobody_announced_is_found_at_the_renewal(held: Stores, redis: str) -> None:
    async with pool(held, redis, lease=1, renewal=0.2):
        [id_, other] = await held.submit(2, latency_ms=30_000)
        await until(lambda: called(held), lambda number: number == 2)
        await ask_cancel(held, id_)
        await until(held.statuses, lambda found: found == ["cancelled", "in_progress"], seconds=5)
        assert held.upstream.disconnected == 1
    # The pool has ended meanwhile: what still ran was given back.
    assert await held.attempts(other) == [("released", False)]
    assert await held.statuses() == ["cancelled", "queued"]


async def test_a_cancelled_job_that_was_given_back_is_not_run_again(held: Stores, redis: str) -> None:
    async with pool(held, redis, lease=61, renewal=20):
        [id_] = await held.submit(latency_ms=30_000)
        await until(lambda: called(held))
        await ask_cancel(held, id_)
    assert await held.statuses() == ["cancelled"]
    assert held.upstream.called() == [f"{id_}-1"]
