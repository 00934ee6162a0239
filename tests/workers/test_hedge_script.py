"""The draw for a second call, on a clock of the test's own: when it is given, from where, and what becomes of it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.limits import Spent
from shared.queue.entries import Move, Taken
from tests.workers.lanes import TARGET, Lane, Limits, deployments, lane_at


@pytest.fixture
async def lane(redis: str) -> AsyncIterator[Lane]:
    async with lane_at(redis) as found:
        yield found


def two(first: dict[str, Any] | None = None, second: dict[str, Any] | None = None) -> Limits:
    """Two keys; the first job goes to `a`, which has more weight."""
    return [("a", 2, first or {}, "m"), ("b", 1, second or {}, "m")]


async def hedge(
    lane: Lane, first: Taken, limits: Limits, *, waited: float = 1.0, after: float | None = 1.0, in_flight: int = 0
) -> Taken | float | None:
    return await lane.queue.hedge(
        "p", first, waited=waited, after=after, longest=60, limits=deployments(limits), in_flight=in_flight
    )


async def drawn(lane: Lane, first: Taken, limits: Limits, *, in_flight: int = 0) -> Taken:
    found = await hedge(lane, first, limits, in_flight=in_flight)
    assert isinstance(found, Taken), found
    return found


async def one_taken(lane: Lane, limits: Limits, *, tenant: str = "t", tokens: tuple[int, int] = (0, 0)) -> Taken:
    await lane.put(tenant=tenant, tokens=tokens, priority="interactive")
    taken, _ = await lane.claim(limits)
    assert len(taken) == 1
    return taken[0]


async def ended(lane: Lane, second: Taken, back: tuple[int, int, int] = (0, 0, 0)) -> None:
    await lane.queue.move("p", [Move(second.lane, second.id, None, Spent(second.key, back))])


async def in_flight(lane: Lane, key: str) -> int | None:
    state = await lane.state(two({"flight": 9}, {"flight": 9}))
    return next(one.in_flight for one in state.deployments if one.key == key)


# ------------------------------------------------------------------ when


async def test_a_call_is_late_after_the_given_time(lane: Lane) -> None:
    first = await one_taken(lane, {})
    assert await hedge(lane, first, {}, waited=0.4, after=1.5) == pytest.approx(1.1)
    assert isinstance(await hedge(lane, first, {}, waited=1.5, after=1.5), Taken)


async def test_a_call_is_late_after_the_learned_p95_once_ten_calls_are_known(lane: Lane) -> None:
    limits: Limits = {"flight": 50}
    for _ in range(9):
        await lane.done([await one_taken(lane, limits)], ms=800)
    first = await one_taken(lane, limits)
    assert await hedge(lane, first, limits, waited=30, after=None) is None
    await lane.done([first], ms=1_200)
    first = await one_taken(lane, limits)
    p95 = (await lane.state(limits)).latency_p95
    assert p95 is not None
    assert 0.8 < p95 < 1.2
    assert await hedge(lane, first, limits, waited=0.3, after=None) == pytest.approx(p95 - 0.3, rel=1e-6)
    assert isinstance(await hedge(lane, first, limits, waited=p95 + 0.001, after=None), Taken)


# ------------------------------------------------------------------ from where


async def test_it_draws_from_another_key_where_one_has_room_else_from_the_same(lane: Lane) -> None:
    first = await one_taken(lane, two())
    assert first.key == "a"
    assert (await drawn(lane, first, two())).key == "b"
    full = two(second={"r": 1})  # its bucket begins empty
    assert (await drawn(lane, first, full)).key == "a"


@pytest.mark.parametrize("limits", [{"flight": 1}, {"r": 60}, {"i": 6_000}, {"t": 6_000}])
async def test_nothing_is_drawn_where_the_limits_do_not_admit_it_at_once(lane: Lane, limits: dict[str, float]) -> None:
    await lane.put(tokens=(300, 300))
    taken, _ = await lane.claim(limits)
    lane.now += 30_000  # the bucket is full, for one job
    [first] = taken or (await lane.claim(limits))[0]
    assert await hedge(lane, first, limits) is None
    lane.now += 20_000
    assert isinstance(await hedge(lane, first, limits), Taken) == ("flight" not in limits)


async def test_a_deployment_that_rests_or_whose_circuit_is_not_closed_is_not_drawn_from(lane: Lane) -> None:
    first = await one_taken(lane, two())
    await lane.queue.refused(TARGET, "b", seconds=60)
    assert (await drawn(lane, first, two())).key == "a"
    for _ in range(5):
        await lane.queue.failed(TARGET, "a")
    assert await hedge(lane, first, two()) is None
    lane.now += 30_000  # half open, and for a job's own call to try
    assert await hedge(lane, first, two()) is None


async def test_whoever_waits_for_the_limits_goes_first(lane: Lane) -> None:
    limits: Limits = {"i": 60_000}
    lane.now += 60_000
    await lane.claim(limits)
    first = await one_taken(lane, {}, tokens=(10, 0))
    [large] = await lane.put(tenant="large", tokens=(50_000, 0))
    await lane.claim({"i": 60_000})  # not admitted: it holds its place
    lane.now += 100
    assert await hedge(lane, first, limits) is None
    await lane.queue.move("p", [Move("m", large, None)])
    lane.now += 1_000
    assert isinstance(await hedge(lane, first, limits), Taken)


async def test_a_tenant_at_its_cap_gets_no_second_call(lane: Lane) -> None:
    await lane.put(2)
    found = await lane.queue.claim("p", most=1, lease=60, payload=b"{}", limits=deployments({}), in_flight=2)
    second = await drawn(lane, found.taken[0], {}, in_flight=2)
    assert await hedge(lane, found.taken[0], {}, in_flight=2) is None
    again = await lane.queue.claim("p", most=1, lease=60, payload=b"{}", limits=deployments({}), in_flight=2)
    assert again.taken == []  # the second call counts against the cap
    await ended(lane, second)
    lane.now += 1_000
    again = await lane.queue.claim("p", most=1, lease=60, payload=b"{}", limits=deployments({}), in_flight=2)
    assert len(again.taken) == 1


async def test_a_job_that_is_not_in_motion_any_more_gets_none(lane: Lane) -> None:
    first = await one_taken(lane, {})
    lane.now += 61_000  # its lease ran out
    assert await hedge(lane, first, {}) is None
    await lane.done([first])
    assert await hedge(lane, first, {}) is None


# ------------------------------------------------------------------ what becomes of it


async def test_what_it_drew_and_its_slot_come_back_with_its_move(lane: Lane) -> None:
    limits = two({"flight": 1}, {"flight": 1, "i": 60_000})
    lane.now += 1_000
    await lane.state(limits)
    first = await one_taken(lane, limits)
    assert first.key == "a"
    second = await drawn(lane, first, limits)
    assert (second.key, second.lane) == ("b", "m")
    assert second.id != first.id
    assert await in_flight(lane, "b") == 1
    assert await hedge(lane, first, limits) is None  # no slot is left
    await ended(lane, second)
    assert (await in_flight(lane, "a"), await in_flight(lane, "b")) == (1, 0)
    await lane.done([first])
    state = await lane.state(limits)
    assert (state.in_motion, state.waiting) == (0, 0)
    assert await lane.queue.redis.hlen("sluice:p:facts:m") == 0


async def test_it_draws_from_the_bucket_and_what_was_not_used_comes_back(lane: Lane) -> None:
    limits: Limits = {"i": 60_000}

    async def left() -> float:
        return (await lane.state(limits)).deployments[0].left["input_tpm"]

    await lane.put(tokens=(80, 0))
    taken, _ = await lane.claim(limits)
    lane.now += 1_000
    [first] = taken or (await lane.claim(limits))[0]
    lane.now += 1_000
    before = await left()
    second = await drawn(lane, first, limits)
    assert (second.input_tokens, await left()) == (80, before - 80)
    await ended(lane, second, (0, 50, 0))
    assert await left() == before - 30


async def test_one_whose_worker_died_lapses_and_is_proposed_to_a_claim(lane: Lane) -> None:
    first = await one_taken(lane, {"flight": 2})
    second = await drawn(lane, first, {"flight": 2})
    lane.now += 59_000
    await lane.queue.renew("p", [(first.lane, first.id, first.key)], lease=60)
    lane.now += 2_000
    taken, _ = await lane.claim({"flight": 2})
    assert [one.id for one in taken] == [second.id]  # Postgres knows no such job
    await lane.queue.move("p", [Move(one.lane, one.id, None, one.unused) for one in taken])
    assert await lane.queue.redis.hkeys("sluice:p:facts:m") == [first.id.hex.encode()]
    assert (await lane.state({})).in_motion == 1


async def test_its_tokens_are_charged_to_its_tenants_turn(lane: Lane) -> None:
    shares = {}
    for hedges in (0, 3):
        await lane.queue.redis.flushdb()
        mine = set(await lane.put(40, tenant="x", tokens=(100, 0)))
        [first], _ = await lane.claim({}, most=1)
        for _ in range(hedges):
            await drawn(lane, first, {})
        await lane.put(40, tenant="y", tokens=(100, 0))
        next_ones = [(await lane.claim({}, most=1))[0][0].id for _ in range(20)]
        shares[hedges] = len(mine.intersection(next_ones))
    assert shares[0] - shares[3] in (1, 2), shares  # three jobs' worth, of two tenants in turn


async def test_a_tenant_that_has_nothing_waiting_is_charged_too(lane: Lane) -> None:
    first = await one_taken(lane, {}, tenant="x", tokens=(4_000, 0))
    rival = await one_taken(lane, {}, tenant="y", tokens=(4_000, 0))
    for _ in range(3):
        await drawn(lane, first, {})
    mine = set(await lane.put(10, tenant="x", tokens=(1_000, 0)))
    await lane.put(10, tenant="y", tokens=(1_000, 0))
    assert rival.key == first.key
    next_ones = [(await lane.claim({}, most=1))[0][0].id for _ in range(6)]
    assert mine.isdisjoint(next_ones)
