"""Keys take turns among themselves, within their tenant's share; caps of calls, holds, and the layout before."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from shared import ids
from shared.limits import Spent
from shared.queue.entries import Move, Taken
from tests.workers.lanes import TARGET, Lane, lane_at

A, B, C = (UUID(int=number << 100) for number in (1, 2, 3))


@pytest.fixture
async def lane(redis: str) -> AsyncIterator[Lane]:
    async with lane_at(redis) as found:
        yield found


class Owners:
    """Puts jobs in a lane and knows whose they are."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.of: dict[UUID, str] = {}

    async def put(self, name: str, number: int, tenant: str, key_id: UUID | None, **more: Any) -> None:
        self.of |= dict.fromkeys(await self.lane.put(number, tenant=tenant, key_id=key_id, **more), name)

    async def claimed(self, most: int, *, in_flight: int = 0) -> list[Taken]:
        claim = self.lane.queue.claim("p", most=most, lease=60, payload=b"{}", in_flight=in_flight)
        return (await claim).taken

    def count(self, taken: list[Taken]) -> Counter[str]:
        return Counter(self.of[one.id] for one in taken)


@pytest.fixture
def owners(lane: Lane) -> Owners:
    return Owners(lane)


# ------------------------------------------------------------------ shares


@pytest.mark.parametrize("at_once", [1, 7, 120])
async def test_keys_share_evenly_and_their_tenant_gets_no_more_for_having_two(owners: Owners, at_once: int) -> None:
    await owners.put("a", 300, "x", A, tokens=(100, 0))
    await owners.put("b", 300, "x", B, tokens=(100, 0))
    await owners.put("other", 300, "y", C, tokens=(100, 0))
    taken: list[Taken] = []
    while len(taken) < 120:
        taken += await owners.claimed(min(at_once, 120 - len(taken)))
    got = owners.count(taken)
    assert abs(got["other"] - 60) <= 1
    assert abs(got["a"] - got["b"]) <= 1


async def test_keys_share_tokens_not_jobs(owners: Owners) -> None:
    await owners.put("large", 300, "x", A, tokens=(999, 0))
    await owners.put("small", 300, "x", B, tokens=(99, 0))
    got = owners.count(await owners.claimed(110))
    assert got["small"] == pytest.approx(100, abs=2)


async def test_a_backlog_of_one_key_does_not_delay_another_key_of_its_tenant(owners: Owners) -> None:
    await owners.put("backlog", 2_000, "x", A, tokens=(100, 0))
    await owners.put("other", 50, "y", C, tokens=(100, 0))
    await owners.claimed(30)
    await owners.put("mine", 5, "x", B, tokens=(100, 0))
    assert owners.count(await owners.claimed(21))["mine"] == 5  # every fourth


async def test_a_key_that_sends_one_job_at_a_time_takes_no_more_than_its_share(owners: Owners) -> None:
    await owners.put("backlog", 300, "x", A, tokens=(100, 0))
    got: Counter[str] = Counter()
    await owners.put("one", 1, "x", B, tokens=(900, 0))
    for _ in range(100):
        taken = await owners.claimed(1)
        got += owners.count(taken)
        if "one" in owners.count(taken):
            await owners.put("one", 1, "x", B, tokens=(900, 0))
    assert 8 <= got["one"] <= 12


@pytest.mark.parametrize("at_a_time", [1, 40])
async def test_a_tenant_gains_nothing_by_ever_new_keys(owners: Owners, at_a_time: int) -> None:
    await owners.put("other", 300, "y", C, tokens=(100, 0))
    got: Counter[str] = Counter()
    for number in range(120):
        if number % at_a_time == 0:
            for _ in range(at_a_time):
                await owners.put("many", 2, "x", ids.new_id(), tokens=(100, 0))
        got += owners.count(await owners.claimed(1))
    assert abs(got["many"] - got["other"]) <= 2


async def test_urgent_work_of_one_key_leads_its_tenants_other_keys_and_other_tenants(owners: Owners) -> None:
    await owners.put("bulk", 100, "x", A, tokens=(100, 0), priority="bulk")
    await owners.put("other", 100, "y", C, tokens=(100, 0))
    await owners.claimed(20)
    await owners.put("urgent", 5, "x", B, tokens=(100, 0), priority="interactive")
    assert owners.count(await owners.claimed(5)) == {"urgent": 5}


# ------------------------------------------------------------------ caps


async def test_a_key_at_its_cap_waits_and_holds_up_nobody(lane: Lane, owners: Owners) -> None:
    await lane.queue.set_caps({("x", A): 2})
    await owners.put("a", 50, "x", A)
    await owners.put("b", 10, "x", B)
    await owners.put("other", 10, "y", A)
    first = await owners.claimed(100)
    assert owners.count(first) == {"a": 2, "b": 10, "other": 10}
    assert await owners.claimed(100) == []
    ended = next(one for one in first if owners.of[one.id] == "a")
    await lane.queue.move("p", [Move(ended.lane, ended.id, None, Spent(ended.key))])
    again = await owners.claimed(100)
    assert owners.count(again) == {"a": 1}
    await lane.queue.renew("p", [(one.lane, one.id, one.key) for one in again], lease=120)
    lane.now += 61_000  # whoever ran the others is gone
    assert owners.count(await owners.claimed(100))["a"] == 1
    await lane.queue.set_caps({})
    lane.now += 500
    assert owners.count(await owners.claimed(100))["a"] == 50 - 4 + 1


async def test_a_tenants_own_cap_stands_for_the_one_of_all(lane: Lane, owners: Owners) -> None:
    await lane.queue.set_caps({("x", None): 3, ("x", B): 2, ("gone", None): 1})
    await owners.put("a", 10, "x", A)
    await owners.put("b", 10, "x", B)
    await owners.put("other", 10, "y", None)
    got = owners.count(await owners.claimed(100, in_flight=5))
    assert (got["a"] + got["b"], got["other"]) == (3, 5)
    assert got["b"] <= 2


async def test_a_key_at_its_cap_gets_no_second_call(lane: Lane, owners: Owners) -> None:
    await lane.queue.set_caps({("x", A): 1})
    await owners.put("a", 1, "x", A)
    [first] = await owners.claimed(1)
    assert await lane.queue.hedge("p", first, waited=1, after=1, longest=60) is None
    await lane.queue.set_caps({("x", A): 2})
    assert isinstance(await lane.queue.hedge("p", first, waited=1, after=1, longest=60), Taken)


# ------------------------------------------------------------------ holds


async def test_a_key_on_hold_waits_for_so_long_and_its_tenants_others_go_on(lane: Lane, owners: Owners) -> None:
    await owners.put("a", 5, "x", A)
    await owners.put("none", 5, "x", None)
    await lane.queue.hold(TARGET, "x", A, seconds=30)
    await lane.queue.hold(TARGET, "x", A, seconds=2)  # a longer one stays
    assert owners.count(await owners.claimed(100)) == {"none": 5}
    await owners.put("a", 1, "x", A, priority="interactive")
    await owners.put("none", 1, "x", None)
    await lane.queue.hold(TARGET, "x", None, seconds=30)
    lane.now += 29_000
    assert await owners.claimed(100) == []
    assert await lane.queue.waiting("x", ["p"]) == 7
    assert (await lane.state({})).waiting == 7
    lane.now += 1_000
    assert owners.count(await owners.claimed(100)) == {"a": 6, "none": 1}


async def test_a_key_on_hold_is_held_before_its_jobs_come_and_leaves_nothing_behind(lane: Lane, owners: Owners) -> None:
    await lane.queue.hold(TARGET, "x", A, seconds=10)
    await owners.put("a", 1, "x", A)
    assert await owners.claimed(10) == []
    [id_] = owners.of
    await lane.queue.move("p", [Move("m", id_, None)])
    lane.now += 10_000
    assert await owners.claimed(10) == []
    names = {name async for name in lane.queue.redis.scan_iter("sluice:p:*")}
    assert names == {b"sluice:p:seen", b"sluice:p:wake"}


async def test_who_was_on_hold_for_long_does_not_make_up_for_all_of_it(lane: Lane, owners: Owners) -> None:
    await owners.put("held", 500, "x", A, tokens=(999, 0))
    await owners.put("other", 500, "y", None, tokens=(999, 0))
    await lane.queue.hold(TARGET, "x", A, seconds=10)
    assert owners.count(await owners.claimed(300)) == {"other": 300}
    lane.now += 10_000
    assert owners.count(await owners.claimed(100))["held"] <= 75  # 20,000 tokens more at most: forty jobs of weight 2


# ------------------------------------------------------------------ what is counted, and what was there before


async def test_the_waiting_jobs_of_a_tenant_and_of_a_key_are_counted(lane: Lane, owners: Owners) -> None:
    for key_id, number in ((A, 3), (B, 4), (None, 5)):
        await owners.put("x", number, "x", key_id)
    await owners.put("y", 7, "y", A)
    assert await lane.queue.waiting("x", ["p", "q"]) == 12
    assert await lane.queue.waiting("x", ["p"], key_id=A) == 3
    assert await lane.queue.waiting("x", [], key_id=A) == 0
    assert await lane.flows() == {f"x/{A.hex}": 3, f"x/{B.hex}": 4, "x": 5, f"y/{A.hex}": 7}


async def test_a_waiting_jobs_place_counts_what_goes_before_it_of_all_keys(lane: Lane, owners: Owners) -> None:
    await owners.put("a", 200, "x", A, tokens=(99, 0))
    await owners.put("other", 200, "y", None, tokens=(99, 0))
    [*_, mine] = await lane.put(10, tenant="x", key_id=B, tokens=(99, 0))
    found = await lane.queue.place(TARGET, mine)
    assert found is not None
    taken = await owners.lane.queue.claim("p", most=60, lease=60, payload=b"{}")
    assert [one.id for one in taken.taken].index(mine) == pytest.approx(found[0], abs=3)


async def test_jobs_that_an_earlier_layout_let_wait_take_their_turns(lane: Lane, owners: Owners) -> None:
    """It knew tenants only: their jobs stand in `waiting:L:T`, and in the lane's turn or on hold."""
    redis, p = lane.queue.redis, "sluice:p:"
    await owners.put("old", 40, "x", None, tokens=(100, 0))
    await owners.put("held", 5, "z", None, tokens=(100, 0))
    await redis.delete(*(f"{p}{name}:m:{tenant}" for name in ("tags", "turns") for tenant in ("x", "z")))
    await redis.zrem(p + "turns:m", "z")
    await redis.zadd(p + "hold:m", {"z": lane.now + 400})
    assert (await lane.state({})).waiting == 45
    assert await lane.queue.waiting("x", ["p"]) == 40
    await owners.put("new", 40, "x", A, tokens=(100, 0))
    await owners.put("other", 40, "y", B, tokens=(100, 0))
    first = owners.count(await owners.claimed(40))
    assert (first["other"], first["held"]) == (pytest.approx(20, abs=1), 0)
    assert first["old"] == pytest.approx(10, abs=1)
    lane.now += 400
    rest = owners.count(await owners.claimed(200))
    assert rest + first == {"old": 40, "new": 40, "other": 40, "held": 5}
    assert await lane.flows() == {}


async def test_an_earlier_layouts_backlog_goes_on_without_a_new_job(lane: Lane, owners: Owners) -> None:
    await owners.put("old", 3, "x", None)
    await lane.queue.redis.delete("sluice:p:tags:m:x", "sluice:p:turns:m:x")
    assert owners.count(await owners.claimed(10)) == {"old": 3}
    assert await lane.flows() == {}
