"""When a circuit opens and closes, on a clock of the test's own, and what is said of its lane meanwhile."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.queue.entries import Taken
from tests.workers.lanes import TARGET, Lane, lane_at

OPEN: dict[str, Any] = {}
"""No limits: whatever waits is taken, but for the circuit."""


@pytest.fixture
async def lane(redis: str) -> AsyncIterator[Lane]:
    async with lane_at(redis) as found:
        await found.put(3_000)
        yield found


def keys(**marks: str) -> list[Any]:
    """Return deployments without limits, by what their values are."""
    return [(key, 1, {}, mark) for key, mark in marks.items()]


async def fail(lane: Lane, times: int, *, key: str = "k") -> list[bool]:
    """Have calls fail that were taken before; return for each whether it opened the circuit."""
    return [await lane.queue.failed(TARGET, key) for _ in range(times)]


async def succeed(lane: Lane, times: int = 1, *, key: str = "k") -> None:
    """Have calls go well that were taken before."""
    await lane.done([Taken("m", one, key, 0, 0) for one in await lane.put(times, tenant="earlier")], ms=200)


async def opens_after(lane: Lane, ms: float) -> Taken:
    """Check that nothing is taken for so long, and then exactly one job; return it."""
    closed = lane.now + ms
    while lane.now < closed - 1:
        assert (await lane.claim(OPEN))[0] == []
        lane.now = min(lane.now + 100, closed - 1)
    assert (await lane.claim(OPEN))[0] == []
    lane.now = closed
    [one] = await look_again(lane, OPEN)
    assert await look_again(lane, OPEN) == []
    return one


async def look_again(lane: Lane, limits: dict[str, Any] | list[Any]) -> list[Taken]:
    """Claim once a new job has drawn attention to the lane."""
    await lane.put(tenant="new")
    return (await lane.claim(limits))[0]


async def health(lane: Lane, limits: dict[str, Any] | list[Any] = OPEN) -> tuple[list[str], bool]:
    state = await lane.state(limits)
    return [one.health for one in state.deployments], state.healthy


async def test_five_failures_in_a_row_open_a_circuit(lane: Lane) -> None:
    await succeed(lane, 100)  # many that went well do not outweigh them
    assert await fail(lane, 4) == [False] * 4
    assert await health(lane) == (["closed"], True)
    assert await fail(lane, 1) == [True]
    assert (await lane.claim(OPEN))[0] == []


async def test_a_success_between_ends_the_row(lane: Lane) -> None:
    await succeed(lane, 20)
    for _ in range(4):
        assert not any(await fail(lane, 4))
        await succeed(lane)
    assert await health(lane) == (["closed"], True)


async def test_failures_that_outnumber_the_good_answers_lately_open_it(lane: Lane) -> None:
    await succeed(lane, 6)
    found = []
    for _ in range(6):  # two badly, one well
        found += await fail(lane, 2)
        await succeed(lane)
    assert found[:9] == [False] * 9  # nine failures, and ten good answers
    assert any(found[9:])


async def test_what_went_well_long_ago_does_not_count(lane: Lane) -> None:
    await succeed(lane, 100)
    lane.now += 20_000
    for _ in range(2):
        assert not any(await fail(lane, 2))
        await succeed(lane)
    assert await fail(lane, 1) == [True]


async def test_failures_long_apart_do_not_open_it_as_long_as_others_go_well(lane: Lane) -> None:
    for _ in range(20):
        assert not any(await fail(lane, 3))
        await succeed(lane)
        lane.now += 10_000


async def test_an_open_circuit_takes_nothing_for_a_second_and_then_one_job(lane: Lane) -> None:
    await fail(lane, 5)
    await opens_after(lane, 1_000)


async def test_each_failure_of_the_job_that_tries_lengthens_it_to_four_seconds_at_most(lane: Lane) -> None:
    await fail(lane, 5)
    for seconds in (1, 2, 3, 4, 4):
        one = await opens_after(lane, seconds * 1_000)
        assert await fail(lane, 1) == [False]  # it was open before
        await lane.done([one])


async def test_the_job_that_tries_closes_it_when_it_goes_well(lane: Lane) -> None:
    await fail(lane, 5)
    for seconds in (1, 2):
        one = await opens_after(lane, seconds * 1_000)
        if seconds == 1:
            await fail(lane, 1)
    await lane.done([one], ms=200)
    assert await health(lane) == (["closed"], True)
    assert len((await lane.claim(OPEN))[0]) == 1_000  # at its full pace
    lane.now += 20_000
    assert await fail(lane, 5) == [False] * 4 + [True]
    await opens_after(lane, 1_000)  # and what was before is forgotten


async def test_failures_of_calls_that_were_sent_before_do_not_lengthen_it(lane: Lane) -> None:
    await fail(lane, 5)
    lane.now += 500
    assert await fail(lane, 50) == [False] * 50
    await opens_after(lane, 500)


async def test_a_job_that_tries_and_never_comes_back_is_followed_by_another(lane: Lane) -> None:
    await fail(lane, 5)
    await opens_after(lane, 1_000)
    await opens_after(lane, 10_000)


async def test_a_key_that_is_refused_is_out_at_once_and_for_longer_each_time(lane: Lane) -> None:
    both = keys(a="key:1", b="key:2")
    assert await lane.queue.failed(TARGET, "a", mark="key:1")
    for seconds in (5, 10, 20, 40, 60, 60):
        assert await health(lane, both) == (["out", "closed"], True)
        lane.now += seconds * 1_000 - 1
        assert {one.key for one in await look_again(lane, both)} == {"b"}
        lane.now += 1
        await lane.put(100)
        tried = Counter(one.key for one in await look_again(lane, both))
        assert tried["a"] == 1
        assert tried["b"] > 0
        assert not await lane.queue.failed(TARGET, "a", mark="key:1")


async def test_a_key_with_another_value_is_in_at_once(lane: Lane) -> None:
    await lane.queue.failed(TARGET, "a", mark="key:1")
    assert await look_again(lane, keys(a="key:1")) == []
    assert len(await look_again(lane, keys(a="key:2"))) == 1_000
    assert await health(lane, keys(a="key:2")) == (["closed"], True)
    assert await lane.queue.failed(TARGET, "a", mark="key:2")  # and out when that is refused too
    assert await look_again(lane, keys(a="key:2")) == []
    lane.now += 5_000
    assert len(await look_again(lane, keys(a="key:2"))) == 1


async def test_a_refused_key_that_is_taken_again_is_in(lane: Lane) -> None:
    await lane.queue.failed(TARGET, "a", mark="key:1")
    lane.now += 5_000
    [one] = await look_again(lane, keys(a="key:1"))
    await lane.done([one], ms=200)
    assert len(await look_again(lane, keys(a="key:1"))) == 1_000


async def test_one_keys_failures_are_none_of_the_others(lane: Lane) -> None:
    both = keys(a="key:1", b="key:2")
    await fail(lane, 5, key="a")
    assert {one.key for one in await look_again(lane, both)} == {"b"}
    assert await health(lane, both) == (["open", "closed"], True)


async def test_a_lane_is_shut_while_jobs_wait_and_every_circuit_is_open(lane: Lane) -> None:
    both = keys(a="key:1", b="key:2")
    assert (await lane.look(both, 10)).shut == []
    await fail(lane, 5, key="a")
    assert (await lane.look(both, 10)).shut == []
    await lane.queue.failed(TARGET, "b", mark="key:2")
    assert await health(lane, both) == (["open", "out"], False)
    assert (await lane.look(both)).shut == ["m"]
    lane.now += 500
    await lane.put()
    found = await lane.look(both)
    assert (found.taken, found.shut) == ([], ["m"])
    lane.now += 500
    assert await health(lane, both) == (["half_open", "out"], True)
    await lane.put()
    [one] = (await lane.look(both)).taken
    assert await health(lane, both) == (["open", "out"], False)  # until it is known how that one fared
    await lane.done([one], ms=200)
    assert await health(lane, both) == (["closed", "out"], True)
    found = await lane.look(both, 10)
    assert (len(found.taken), found.shut) == (10, [])


async def test_a_lane_where_nothing_waits_is_not_shut(lane: Lane) -> None:
    while (await lane.claim(OPEN))[0]:
        pass
    await fail(lane, 5)
    lane.now += 100
    assert (await lane.look(OPEN)).shut == []
    await lane.put()
    assert (await lane.look(OPEN)).shut == ["m"]


@pytest.mark.parametrize(("seconds", "shut"), [(5, False), (30, True)])
async def test_a_lane_whose_keys_only_rest_is_shut_where_that_is_long(lane: Lane, seconds: float, shut: bool) -> None:
    await lane.queue.refused(TARGET, "k", seconds=seconds)
    found = await lane.look(OPEN)
    assert (found.taken, found.shut) == ([], ["m"] if shut else [])
    state = await lane.state(OPEN)
    assert state.deployments[0].resting == pytest.approx(seconds)
    assert state.healthy is not shut


async def test_a_lane_is_not_shut_once_a_job_may_try_though_its_key_rests(lane: Lane) -> None:
    await fail(lane, 5)
    await lane.queue.refused(TARGET, "k", seconds=8)
    assert (await lane.look(OPEN)).shut == ["m"]
    lane.now += 1_000
    found = await lane.look(OPEN)
    assert (found.taken, found.shut) == ([], [])
    assert await health(lane) == (["half_open"], True)


async def test_a_lane_of_which_nothing_is_known_is_healthy(lane: Lane) -> None:
    assert await health(lane, []) == ([], True)
    assert (await lane.look([])).shut == []
    assert await health(lane) == (["closed"], True)
