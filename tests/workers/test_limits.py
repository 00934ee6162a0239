"""Limits and fairness of the claim, on a clock of the test's own, against what a simple reckoning allows."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.allowance import Allowance
from shared.limits import Spent
from shared.queue.entries import Move, Taken
from shared.routing import Target
from tests.workers.lanes import START, Lane, lane_at


@pytest.fixture
async def lane(redis: str) -> AsyncIterator[Lane]:
    async with lane_at(redis) as found:
        yield found


async def run(lane: Lane, limits: dict[str, float], *, until_ms: float) -> list[tuple[float, Taken]]:
    """Claim whenever told to, as a pool does, until a time; return what was taken when."""
    seen: list[tuple[float, Taken]] = []
    while lane.now < START + until_ms:
        taken, next_ms = await lane.claim(limits)
        seen += [(lane.now - START, one) for one in taken]
        await lane.done(taken)
        lane.now += max(1.0, min(next_ms if next_ms is not None else 1e9, 500.0))
    return seen


async def test_requests_go_out_at_their_pace_from_an_empty_bucket(lane: Lane) -> None:
    await lane.put(500)
    seen = await run(lane, {"r": 3_000}, until_ms=5_000)
    assert 248 <= len(seen) <= 251  # 50 a second
    for start in range(0, 5_000, 100):
        assert sum(start <= at < start + 1_000 for at, _ in seen) <= 51


async def test_a_known_burst_goes_at_once_after_a_pause(lane: Lane) -> None:
    await lane.put(1)
    await run(lane, {"r": 600, "burst": 20}, until_ms=1_000)
    lane.now += 60_000
    await lane.put(100)
    taken, _ = await lane.claim({"r": 600, "burst": 20})
    assert len(taken) == 20


async def test_tokens_are_counted_and_what_was_not_used_comes_back(lane: Lane) -> None:
    await lane.put(100, tokens=(500, 500))
    limits = {"t": 60_000}
    seen = await run(lane, limits, until_ms=10_000)
    assert 9 <= len(seen) <= 11
    drawn = [one for _, one in seen]
    await lane.done(drawn, (250, 250))
    again = await run(lane, limits, until_ms=lane.now - START + 100)
    assert 4 <= len(again) <= 6


async def test_a_large_job_is_gone_round_for_a_while_and_then_waited_for(lane: Lane) -> None:
    [large] = await lane.put(tokens=(50_000, 0), tenant="large")
    await lane.put(2_000, tokens=(100, 0), tenant="small")
    seen = await run(lane, {"i": 60_000}, until_ms=70_000)
    order = [one.id for _, one in seen]
    assert large in order
    assert order.index(large) > 10
    at = next(at for at, one in seen if one.id == large)
    assert at < 12_000


async def test_no_more_calls_at_once_than_allowed_whoever_dies(lane: Lane) -> None:
    await lane.put(30)
    first, _ = await lane.claim({"flight": 4})
    assert len(first) == 4
    assert (await lane.claim({"flight": 4}))[0] == []
    await lane.done(first[:1])
    assert len((await lane.claim({"flight": 4}))[0]) == 1
    lane.now += 61_000  # nobody renewed
    assert len((await lane.claim({"flight": 4}))[0]) == 4


async def test_keys_share_by_weight_and_each_keeps_its_own_limit(lane: Lane) -> None:
    await lane.put(400)
    taken, _ = await lane.claim([("a", 3, {}), ("b", 1, {})], most=400)
    assert Counter(one.key for one in taken) == {"a": 300, "b": 100}
    await lane.put(400)
    lane.now += 60_000
    both: list[Any] = [("a", 1, {"r": 600, "burst": 5}), ("b", 1, {"r": 600, "burst": 9})]
    await lane.claim(both)
    lane.now += 60_000
    taken, _ = await lane.claim(both)
    assert Counter(one.key for one in taken) == {"a": 5, "b": 9}


async def test_a_newcomer_gets_its_half_of_a_lane_with_a_backlog(lane: Lane) -> None:
    await lane.put(2_000, tenant="x", tokens=(100, 0))
    await run(lane, {"r": 3_000}, until_ms=2_000)
    mine = await lane.put(100, tenant="y", tokens=(100, 0))
    began = lane.now - START
    seen = await run(lane, {"r": 3_000}, until_ms=began + 6_000)
    last = max(at for at, one in seen if one.id in set(mine)) - began
    assert last < 1.1 * 100 / 25 * 1000  # 25 a second are its half


async def test_interactive_work_leads_and_does_not_starve_others_bulk(lane: Lane) -> None:
    bulk = await lane.put(500, tenant="x", tokens=(100, 0), priority="bulk")
    await lane.claim({}, most=10)
    urgent = await lane.put(500, tenant="y", tokens=(100, 0), priority="interactive")
    first, _ = await lane.claim({}, most=100)
    assert [one.id for one in first] == urgent[:100]  # a small strict lead
    later, _ = await lane.claim({}, most=500)
    share = sum(one.id in set(bulk) for one in later) / len(later)
    assert 0.1 < share < 0.3  # then four to one


async def test_a_refused_key_rests_and_goes_on_more_slowly_while_the_other_goes_on(lane: Lane) -> None:
    await lane.put(1_000)
    both: list[Any] = [("a", 1, {"r": 600}), ("b", 1, {"r": 600})]
    await lane.queue.refused(Target("p", "m"), "a", seconds=2)
    seen = Counter()
    while lane.now < START + 2_000:
        taken, next_ms = await lane.claim(both)
        seen.update(one.key for one in taken)
        lane.now += max(1.0, min(next_ms or 1e9, 500.0))
    assert 18 <= seen["b"] <= 21
    assert seen["a"] <= 2
    seen.clear()
    while lane.now < START + 12_000:
        taken, next_ms = await lane.claim(both)
        seen.update(one.key for one in taken)
        lane.now += max(1.0, min(next_ms or 1e9, 500.0))
    assert 98 <= seen["b"] <= 101
    assert 78 <= seen["a"] <= 84


async def test_a_waiting_job_knows_its_place_and_when_its_turn_comes(lane: Lane) -> None:
    made = await lane.put(600, tenant="x")
    await run(lane, {"r": 3_000}, until_ms=4_000)
    found = await lane.queue.place(Target("p", "m"), made[-1])
    assert found is not None
    before, seconds = found
    assert 398 <= before <= 401
    assert seconds is not None
    assert 7 < seconds < 9
    await lane.put(50, tenant="y")
    assert (await lane.queue.place(Target("p", "m"), made[-1])) == (before + 50, pytest.approx(seconds + 1, rel=0.1))
    assert await lane.queue.place(Target("p", "m"), made[0]) is None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shares=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 400)), min_size=2, max_size=4),
    seed=st.integers(0, 9),
)
async def test_tenants_that_wait_get_the_same_tokens(lane: Lane, shares: list[tuple[int, int]], seed: int) -> None:
    await lane.queue.redis.flushdb()
    owner = {}
    for index, (_, tokens) in enumerate(shares):
        for id_ in await lane.put(400, tenant=f"t{index}", tokens=(tokens, 0)):
            owner[id_] = (index, tokens)
    got: Counter[int] = Counter()
    for _ in range(20):
        taken, _ = await lane.claim({}, most=5 + seed)
        for one in taken:
            index, tokens = owner[one.id]
            got[index] += tokens + 1
        await lane.done(taken)
        # A tenant is never ahead of another by more than one job of each.
        for first, (_, mine) in enumerate(shares):
            for second, (_, theirs) in enumerate(shares):
                if first != second:
                    assert got[first] - got[second] <= mine + theirs + 2


async def test_what_comes_back_is_no_more_than_what_was_drawn(lane: Lane) -> None:
    await lane.put(tokens=(100, 1_000_000))
    await lane.put(2_000, tokens=(1_000, 0), tenant="other")
    limits = {"t": 60_000, "reserve": True}
    seen = await run(lane, limits, until_ms=70_000)
    [large] = [one for _, one in seen if one.output_tokens > 500]
    assert large.input_tokens + large.output_tokens == 60_000


async def test_a_lane_that_lay_idle_for_long_still_takes_its_tenants_in_turn(lane: Lane) -> None:
    await lane.put(600, tenant="x", tokens=(100, 0))
    await lane.claim({}, most=300)
    lane.now += 3_600_000
    mine = await lane.put(600, tenant="y", tokens=(100, 0))
    newcomers = set(mine)
    taken, _ = await lane.claim({}, most=100)
    assert 40 <= sum(one.id in newcomers for one in taken) <= 60
    assert await lane.queue.redis.ttl("sluice:p:clock:m") == -1


async def test_retries_that_are_due_take_nobody_elses_turn(lane: Lane) -> None:
    limits = {"r": 600}
    mine = await lane.put(5, tenant="x")
    others = set(await lane.put(300, tenant="y"))
    counts: Counter[str] = Counter()
    while lane.now < START + 20_000:
        taken, next_ms = await lane.claim(limits)
        for one in taken:
            counts["y" if one.id in others else "x"] += 1
        again = datetime.fromtimestamp(lane.now / 1000 + 0.2, UTC)
        await lane.queue.move(
            "p", [Move(one.lane, one.id, again, Spent(one.key)) for one in taken if one.id in set(mine)]
        )
        await lane.done([one for one in taken if one.id in others])
        lane.now += max(1.0, min(next_ms or 1e9, 500.0))
    assert counts["y"] > 0.8 * counts["x"]


async def test_a_tenant_has_no_more_calls_under_way_than_it_may_and_holds_up_nobody(lane: Lane) -> None:
    mine = set(await lane.put(50, tenant="x"))
    await lane.put(10, tenant="y")
    first = (await lane.queue.claim("p", most=100, lease=60, payload=b"{}", in_flight=4)).taken
    assert Counter(one.id in mine for one in first) == {True: 4, False: 4}
    assert (await lane.queue.claim("p", most=100, lease=60, payload=b"{}", in_flight=4)).taken == []
    ended = next(one for one in first if one.id in mine)
    await lane.queue.move("p", [Move(ended.lane, ended.id, None, Spent(ended.key))])
    again = (await lane.queue.claim("p", most=100, lease=60, payload=b"{}", in_flight=4)).taken
    assert [one.id in mine for one in again] == [True]
    await lane.queue.renew("p", [(one.lane, one.id, one.key) for one in again], lease=120)
    lane.now += 61_000  # whoever ran the others is gone
    freed = (await lane.queue.claim("p", most=100, lease=60, payload=b"{}", in_flight=4)).taken
    assert Counter(one.id in mine for one in freed) == {True: 3, False: 4}
    assert await lane.queue.waiting("x", ["p"]) == 50 - 4 - 1 - 3 + 3


async def test_a_burst_that_is_configured_is_not_exceeded_whatever_a_provider_says_is_left(lane: Lane) -> None:
    await lane.put(300)
    limits = {"r": 3_000, "burst": 10}
    await lane.claim(limits)
    lane.now += 1_000
    [first, *_], _ = await lane.claim(limits, most=1)
    await lane.queue.told(first, "p", {"r": Allowance(3_000, 2_000, 3_000)})
    taken, _ = await lane.claim(limits)
    assert len(taken) <= 10
