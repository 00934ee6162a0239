"""What a pool takes, when, and in which order; and that it still is an arq worker."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from arq import ArqRedis, Worker, cron
from redis.asyncio import ConnectionPool

from shared.queue.entries import Move
from tests.gateway import until
from tests.workers.pools import Stores, pool, stores, uuid
from workers.maintain import Maintenance


@pytest.fixture
async def held(database: str, redis: str) -> AsyncIterator[Stores]:
    async with stores(database, redis) as opened:
        yield opened


async def called(held: Stores) -> int:
    return len(held.upstream.calls)


async def test_it_counts_and_tells_its_health_as_arq_does(held: Stores, redis: str) -> None:
    async with pool(held, redis) as worker:
        await held.submit(5)
        await held.completed()

        async def counted() -> int:
            return worker.jobs_complete

        await until(counted, lambda number: number == 5)
        assert (worker.jobs_failed, worker.jobs_retried) == (0, 0)
        health = await held.queue.redis.get("sluice:p:health:w")
        assert b"j_complete=" in health
        assert 0 < await held.queue.redis.pttl("sluice:p:health:w") <= 6_000


async def test_it_runs_no_more_at_once_than_it_has_slots(held: Stores, redis: str) -> None:
    for number in range(12):
        await held.submit(latency_ms=30 + 17 * (number % 5))  # slots come free one by one
    async with pool(held, redis, slots=3):
        await held.completed()
    assert held.upstream.peak == 3
    assert len(held.upstream.calls) == 12


async def test_two_pools_share_the_jobs_and_run_none_twice(held: Stores, redis: str) -> None:
    made = await held.submit(60, latency_ms=10)
    async with pool(held, redis, slots=3) as first, pool(held, redis, slots=3) as second:
        await held.completed()
        assert first.jobs_complete > 5
        assert second.jobs_complete > 5
    assert sorted(held.upstream.called()) == sorted(f"{id_}-1" for id_ in made)


async def test_higher_priorities_go_first_and_bulk_that_waited_long_enough_before_them(
    held: Stores, redis: str
) -> None:
    order = {name: await held.submit(2, priority=name) for name in ("bulk", "standard", "interactive")}
    old = await held.submit(1, priority="bulk", after=-1_300)
    async with pool(held, redis, slots=1):
        await held.completed()
    expected = old + order["interactive"] + order["standard"] + order["bulk"]
    assert held.upstream.called() == [f"{id_}-1" for id_ in expected]


async def test_a_lane_that_was_told_to_wait_rests_while_its_neighbour_goes_on(held: Stores, redis: str) -> None:
    async with pool(held, redis, slots=1):
        [refused] = await held.submit(model="a", fail=[{"status": 429, "retry_after": 1}])
        await until(lambda: called(held), what="refused")
        told = held.upstream.calls[0][0]
        await until(lambda: held.attempts(refused), what="put back")
        same = await held.submit(3, model="a")
        other = await held.submit(3, model="b")

        async def neighbours() -> set[str]:
            return set(held.upstream.called()) & {f"{id_}-1" for id_ in other}

        await until(neighbours, lambda found: len(found) == 3, seconds=0.9, what="the other lane went on")
        await held.completed()
    at = {id_: moment for moment, id_ in held.upstream.calls}
    assert all(at[f"{id_}-1"] >= told + 1 for id_ in same)
    assert at[f"{refused}-2"] >= told + 1
    assert await held.attempts(refused) == [("failed", False), ("completed", True)]


async def test_a_deferred_job_starts_at_its_time(held: Stores, redis: str) -> None:
    async with pool(held, redis):
        due = time.monotonic() + 1.3
        await held.submit(after=1.3)
        assert await until(lambda: called(held)) == 1
        assert -0.002 < held.upstream.calls[0][0] - due < 0.4


async def test_an_idle_pool_starts_a_job_at_once(held: Stores, redis: str) -> None:
    waits = []
    async with pool(held, redis):
        for number in range(7):
            await asyncio.sleep(0.07 * number)  # not in step with anything that looks every half second
            began = time.monotonic()
            await held.submit()
            await until(lambda number=number: called(held), lambda seen, number=number: seen == number + 1)
            waits.append(held.upstream.calls[-1][0] - began)
    assert statistics.median(waits) < 0.1


async def test_a_freed_slot_is_filled_at_once(held: Stores, redis: str) -> None:
    await held.submit(10, latency_ms=20)
    async with pool(held, redis, slots=1):
        began = time.monotonic()
        await held.completed(seconds=4.5)
        assert time.monotonic() - began < 4.5  # looking every half second takes five


async def test_what_runs_lies_in_arqs_layout_and_what_ended_nowhere(held: Stores, redis: str) -> None:
    client = held.queue.redis
    async with pool(held, redis):
        [id_] = await held.submit(latency_ms=700)
        await until(lambda: called(held))
        name = uuid(id_).hex
        [(member, score)] = await client.zrange("sluice:p:queue:m", 0, -1, withscores=True)
        now = (await client.time())[0] * 1000
        assert member == name.encode()
        assert now < score <= now + 3_000
        assert sorted(await client.keys("arq:*")) == [f"arq:{kind}:{name}".encode() for kind in ("job", "retry")]
        await held.completed()

        async def left() -> list[bytes]:
            return [key for key in await client.keys("*") if b"health" not in key and b"wake" not in key]

        await until(
            left,
            lambda keys: (
                set(keys)
                <= {
                    f"sluice:p:{kind}".encode()
                    for kind in ("lanes", "seen", "clock:m", "past:m", "pace:m", "usage:m", "bucket:m:")
                }
            ),
            what="nothing left",
        )
        assert await client.keys("arq:*") == []


async def test_what_postgres_refuses_leaves_redis_and_is_not_called(held: Stores, redis: str) -> None:
    await held.submit()
    await held.rows("UPDATE jobs SET status = 'cancelled', finished_at = now()")
    async with pool(held, redis):
        after = await held.submit()

        async def ended() -> str:
            return (await held.statuses())[1]

        await until(ended, lambda status: status == "completed")
        assert await held.queue.redis.exists("sluice:p:queue:m", "sluice:p:waiting:m") == 0
    assert held.upstream.called() == [f"{after[0]}-1"]


@pytest.mark.parametrize("emptied", [False, True])
async def test_a_job_that_waited_for_days_still_runs(held: Stores, redis: str, emptied: bool) -> None:
    waiting = await held.submit()
    far = await held.submit(after=3_600)
    await held.rows(
        "UPDATE jobs SET created_at = now() - interval '25 h', run_at = now() - interval '25 h', started_at = NULL"
    )
    keys = await held.queue.redis.keys("*")
    assert keys
    assert {await held.queue.redis.pttl(key) for key in keys} == {-1}  # nothing of it ever expires
    if emptied:
        await held.queue.redis.flushall()
        await Maintenance(held.engine, held.queue, max_attempts=5).enqueue_missing()
    else:
        await held.queue.move("p", [Move("m", uuid(far[0]), datetime.now(UTC))])
    async with pool(held, redis):
        await held.completed()
    assert sorted(held.upstream.called()) == sorted(f"{id_}-1" for id_ in waiting + far)


async def test_arqs_cron_runs_on_a_stock_worker_beside_it(held: Stores, redis: str) -> None:
    ticked = asyncio.Event()

    async def tick(_: dict[object, object]) -> None:
        ticked.set()

    client = ArqRedis(ConnectionPool.from_url(redis, socket_timeout=10), default_queue_name="arq:stock")
    stock = Worker(
        cron_jobs=[cron(tick, second=set(range(60)), run_at_startup=True)],
        redis_pool=client,
        poll_delay=0.05,
        handle_signals=False,
        keep_result=0,
    )
    async with pool(held, redis):
        running = asyncio.create_task(stock.async_run())
        try:
            await held.submit(5)
            await held.completed()
            async with asyncio.timeout(5):
                await ticked.wait()
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await client.aclose(close_connection_pool=True)
    assert len(held.upstream.calls) == 5
