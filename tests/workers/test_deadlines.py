"""Jobs that have to end by a time: who goes first, and who cannot make it any more; on a clock of the test's own."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from shared.queue.entries import Move
from tests.workers.lanes import Lane, lane_at

SMALL = {"t": 60_000}
"""The limits of a deployment that admits 200 tokens at once."""


@pytest.fixture
async def lane(redis: str) -> AsyncIterator[Lane]:
    async with lane_at(redis) as found:
        yield found


async def order(lane: Lane, most: int = 100, limits: dict[str, Any] | None = None) -> list[UUID]:
    return [one.id for one in (await lane.claim(limits or {}, most=most))[0]]


async def calls(lane: Lane, times: list[float]) -> None:
    """Have calls of the lane go well that took so many ms."""
    for ms in times:
        await lane.put()
        taken, _ = await lane.claim({})
        await lane.done(taken, ms=ms, used=(1, 1))


async def with_deadlines(lane: Lane) -> int:
    """Return how many jobs are known to have a deadline while they wait."""
    names = [name async for name in lane.queue.redis.scan_iter("sluice:p:deadlines:*")]
    return sum([await lane.queue.redis.zcard(name) for name in names])


async def test_a_job_whose_deadline_is_near_goes_before_its_tenants_older_ones(lane: Lane) -> None:
    older = await lane.put(3)
    [near] = await lane.put(deadline=29_000)
    [nearer] = await lane.put(deadline=10_000)
    assert await order(lane) == [nearer, near, *older]


async def test_a_job_whose_deadline_is_far_keeps_its_place_until_it_is_near(lane: Lane) -> None:
    older = await lane.put(3)
    [far] = await lane.put(deadline=31_000)
    assert await order(lane, 1) == older[:1]
    lane.now += 1_001
    assert await order(lane) == [far, *older[1:]]


async def test_a_deadline_takes_no_other_tenants_turn(lane: Lane) -> None:
    turns = []
    for deadline in (None, 10_000):
        await lane.queue.redis.flushdb()
        mine = await lane.put(5, tenant="x", tokens=(100, 100))
        await lane.put(4, tenant="y", tokens=(100, 100))
        [last] = await lane.put(tenant="y", tokens=(100, 100), deadline=deadline)
        found = await order(lane)
        turns.append([one in mine for one in found])
        assert found[1 if deadline else -1] == last
    assert turns[0] == turns[1]


async def test_a_job_whose_deadline_has_passed_is_late_and_not_taken(lane: Lane) -> None:
    [late] = await lane.put(deadline=1_000)
    [other] = await lane.put()
    lane.now += 1_000
    found = await lane.look({})
    assert [one.id for one in found.taken] == [other]
    assert found.late == [late]
    again = await lane.look({})
    assert (again.taken, again.late) == ([], [])


async def test_a_job_with_less_time_than_its_tenants_fast_calls_take_is_late(lane: Lane) -> None:
    await calls(lane, [5_000, 4_000, 6_000] * 10)
    [late] = await lane.put(deadline=3_900)
    [tight] = await lane.put(deadline=4_500)
    [other] = await lane.put(tenant="other", deadline=100)  # of whose calls nothing is known
    found = await lane.look({})
    assert {one.id for one in found.taken} == {tight, other}
    assert found.late == [late]


async def test_what_fast_calls_take_is_forgotten_while_none_ends(lane: Lane) -> None:
    await calls(lane, [60_000] * 10)
    [late] = await lane.put(deadline=30_000)
    assert (await lane.look({})).late == [late]
    lane.now += 6 * 60_000
    [tried] = await lane.put(deadline=30_000)
    assert await order(lane) == [tried]


async def test_before_ten_calls_are_known_a_job_may_try(lane: Lane) -> None:
    await calls(lane, [5_000] * 9)
    [first] = await lane.put(deadline=100)
    assert await order(lane) == [first]
    await calls(lane, [5_000])
    [second] = await lane.put(deadline=100)
    found = await lane.look({})
    assert (found.taken, found.late) == ([], [second])


async def test_a_deadline_that_passed_counts_however_much_the_calls_vary(lane: Lane) -> None:
    await calls(lane, [100, 2_000] * 20)
    [late] = await lane.put(deadline=500)
    lane.now += 600
    found = await lane.look({})
    assert (found.taken, found.late) == ([], [late])


async def test_calls_that_take_minutes_are_known_to_be_too_slow_for_a_deadline(lane: Lane) -> None:
    await calls(lane, [120_000] * 10)
    [late] = await lane.put(deadline=60_000)
    found = await lane.look({})
    assert (found.taken, found.late) == ([], [late])


async def test_a_late_job_is_not_taken_in_the_place_of_one_that_is_not_admitted(lane: Lane) -> None:
    await lane.put(tenant="x", tokens=(5_000, 100))
    assert await order(lane, limits=SMALL) == []
    lane.now += 100
    [late] = await lane.put(tenant="y", tokens=(10, 10), deadline=0)
    found = await lane.look(SMALL)
    assert (found.taken, found.late) == ([], [late])


async def test_a_late_job_costs_no_token(lane: Lane) -> None:
    limits = {"r": 600, "t": 600_000, "burst": 10}
    await lane.put()
    while not await order(lane, limits=limits):
        lane.now += 50
    lane.now += 10_000
    before = (await lane.state(limits)).deployments[0].left
    late = await lane.put(5, tokens=(100, 100), deadline=0)
    found = await lane.look(limits)
    assert (found.taken, sorted(found.late)) == ([], late)
    assert (await lane.state(limits)).deployments[0].left == before == {"rpm": 10, "tpm": 2_000}
    assert (await lane.state(limits)).waiting == 0


async def test_late_jobs_take_nobodys_turn(lane: Lane) -> None:
    turns = []
    for late in (0, 5):
        await lane.queue.redis.flushdb()
        await lane.put(late, tenant="x", tokens=(1_000, 0), deadline=0)
        mine = await lane.put(4, tenant="x", tokens=(100, 0))
        await lane.put(4, tenant="y", tokens=(100, 0))
        turns.append([one in mine for one in await order(lane)])
    assert turns[0] == turns[1]


async def test_a_job_that_was_taken_has_no_deadline_to_wait_for(lane: Lane) -> None:
    await lane.put(3, deadline=10_000)
    await lane.put(2, deadline=3_600_000)
    assert await with_deadlines(lane) == 5
    assert len(await order(lane, 4)) == 4
    assert await with_deadlines(lane) == 1
    assert len(await order(lane)) == 1
    assert await with_deadlines(lane) == 0


async def test_a_job_that_is_taken_before_a_larger_one_has_no_deadline_to_wait_for(lane: Lane) -> None:
    await lane.put(tenant="x", tokens=(5_000, 100))
    assert await order(lane, limits=SMALL) == []
    lane.now += 100
    [small] = await lane.put(tenant="y", tokens=(10, 10), deadline=10_000)
    assert await order(lane, limits=SMALL) == [small]
    assert await with_deadlines(lane) == 0


async def test_a_job_that_leaves_the_queue_has_no_deadline_to_wait_for(lane: Lane) -> None:
    waiting = await lane.put(3, deadline=10_000)
    await lane.queue.move("p", [Move("m", one, None) for one in waiting])
    assert await with_deadlines(lane) == 0
    assert await order(lane) == []


async def test_a_late_job_has_no_deadline_to_wait_for(lane: Lane) -> None:
    await lane.put(3, deadline=1_000)
    lane.now += 2_000
    assert len((await lane.look({})).late) == 3
    assert await with_deadlines(lane) == 0


async def test_a_job_that_comes_back_still_has_its_deadline(lane: Lane) -> None:
    await lane.put(deadline=5_000)
    [one] = (await lane.look({})).taken
    await lane.queue.move("p", [Move("m", one.id, lane.at(500))])
    assert await with_deadlines(lane) == 0
    lane.now += 500
    older = await lane.put(2)
    assert await order(lane) == [one.id, *older]
    await lane.queue.move("p", [Move("m", one.id, lane.at(500))])
    lane.now += 5_000
    assert (await lane.look({})).late == [one.id]
