"""The scripts in Redis, called directly: what is in which key after each, and whose turn it is."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from redis.asyncio import Redis

from shared import ids, queue
from shared.queue import CANCEL, Queue, announced
from shared.queue.entries import Entry, Move
from shared.routing import Target
from tests.gateway import until

PAYLOAD = b'{"f": "run"}'
P = "sluice:p:"


@pytest.fixture
async def line(redis: str) -> AsyncIterator[Queue]:
    client: Redis = queue.connect(redis)
    try:
        yield Queue(client)
    finally:
        await client.aclose(close_connection_pool=True)


def entries(
    number: int, *, lane: str = "a", priority: str = "standard", seconds: float = 0.0, tenant: str = "t"
) -> list[Entry]:
    """Return jobs that are due in so many seconds."""
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    return [Entry(ids.new_id(), Target("p", lane), priority, at, tenant) for _ in range(number)]


async def take(line: Queue, most: int, *, lease: float = 60) -> list[tuple[str, UUID]]:
    taken = (await line.claim("p", most=most, lease=lease, payload=PAYLOAD)).taken
    return [(lane, id_) for lane, id_, *_ in taken]


async def now_ms(line: Queue) -> float:
    seconds, micros = await line.redis.time()
    return float(seconds * 1000 + micros / 1000)


async def test_enqueueing_again_changes_nothing_wherever_the_job_is(line: Queue) -> None:
    waiting, deferred = entries(2), entries(1, seconds=60)
    for _ in range(3):
        await line.enqueue(waiting + deferred)
    assert await line.redis.zcard(P + "waiting:a:t") == 2
    assert await line.redis.zrange(P + "queue:a", 0, -1) == [deferred[0].id.hex.encode()]
    [(_, taken)] = await take(line, 1)
    before = await line.redis.zrange(P + "queue:a", 0, -1, withscores=True)
    await line.enqueue(waiting + deferred)
    assert await line.redis.zrange(P + "queue:a", 0, -1, withscores=True) == before
    assert await take(line, 10) == [("a", waiting[1].id)]
    assert taken == waiting[0].id


async def test_more_jobs_than_one_script_call_takes_are_all_enqueued(line: Queue) -> None:
    await line.enqueue(entries(queue.MOST_AT_ONCE + 7))
    assert await line.redis.zcard(P + "waiting:a:t") == queue.MOST_AT_ONCE + 7


async def test_what_is_claimed_lies_in_arqs_layout(line: Queue) -> None:
    [new] = entries(1)
    await line.enqueue([new])
    before = await now_ms(line)
    assert await take(line, 5, lease=30) == [("a", new.id)]
    [(id_, score)] = await line.redis.zrange(P + "queue:a", 0, -1, withscores=True)
    assert id_ == new.id.hex.encode()
    assert before + 30_000 <= score <= await now_ms(line) + 30_000
    assert await line.redis.get(f"arq:job:{new.id.hex}") == PAYLOAD
    assert 86_300_000 < await line.redis.pttl(f"arq:job:{new.id.hex}") <= 86_400_000
    assert await line.redis.zcard(P + "waiting:a:t") == 0
    assert await take(line, 5) == []


async def test_a_claim_takes_no_more_than_asked_and_goes_round_the_lanes(line: Queue) -> None:
    made = {lane: entries(10, lane=lane) for lane in "abc"}
    for new in made.values():
        await line.enqueue(new)
    seen: dict[str, list[UUID]] = {lane: [] for lane in made}
    for _ in range(5):
        taken = await take(line, 6)
        assert len(taken) == 6
        for lane, id_ in taken:
            seen[lane].append(id_)
        sizes = [len(held) for held in seen.values()]
        assert max(sizes) - min(sizes) <= 2
    assert seen == {lane: [entry.id for entry in new] for lane, new in made.items()}


async def test_a_lane_that_has_little_leaves_its_share_to_the_others(line: Queue) -> None:
    await line.enqueue(entries(1, lane="a") + entries(20, lane="b"))
    assert len(await take(line, 10)) + len(await take(line, 10)) == 20


async def test_a_lane_that_is_never_reached_by_small_claims_gets_its_turn(line: Queue) -> None:
    await line.enqueue(entries(50, lane="a") + entries(1, lane="b") + entries(1, lane="c"))
    first = [(await take(line, 1))[0][0] for _ in range(6)]
    assert {"b", "c"} <= set(first)


async def test_interactive_goes_first_and_bulk_is_not_starved(line: Queue) -> None:
    old = entries(1, priority="bulk", seconds=-1_300)  # twice ten minutes: the lead of the others has been waited out
    bulk, standard, interactive = (entries(3, priority=name) for name in ("bulk", "standard", "interactive"))
    await line.enqueue(bulk + standard + interactive + old)
    taken = [id_ for _, id_ in await take(line, 10)]
    assert taken == [entry.id for entry in old + interactive + standard + bulk]


async def test_a_lease_that_ran_out_makes_a_job_due_and_a_renewed_one_does_not(line: Queue) -> None:
    await line.enqueue(entries(2))
    (lane, renewed), (_, lost) = await take(line, 2, lease=0.15)
    await line.renew("p", [(lane, renewed, "")], lease=60)
    again: list[tuple[str, UUID]] = []

    async def due() -> list[tuple[str, UUID]]:
        again.extend(await take(line, 5))
        return again

    assert await until(due, seconds=5) == [("a", lost)]


async def test_renewing_brings_back_nothing_that_has_left(line: Queue) -> None:
    await line.enqueue(entries(1))
    [(lane, id_)] = await take(line, 1)
    await line.move("p", [Move(lane, id_, None)])
    await line.renew("p", [(lane, id_, "")], lease=60)
    assert await line.redis.zcard(P + "queue:a") == 0


async def test_a_moved_job_is_due_at_its_time_and_wakes_the_pool_when_that_is_now(line: Queue) -> None:
    await line.enqueue(entries(2))
    taken = await take(line, 2)
    await line.redis.delete(P + "wake")
    at = datetime.now(UTC) + timedelta(seconds=60)
    await line.move("p", [Move("a", taken[0][1], at)])
    assert await line.redis.llen(P + "wake") == 0
    assert await line.redis.zscore(P + "queue:a", taken[0][1].hex) == int(at.timestamp() * 1000)
    await line.move("p", [Move("a", taken[1][1], datetime.now(UTC))])
    assert await line.redis.llen(P + "wake") == 1
    assert await take(line, 5) == [taken[1]]
    assert await line.redis.keys("arq:*") == [f"arq:job:{taken[1][1].hex}".encode()]


async def test_a_job_that_left_leaves_no_key_behind(line: Queue) -> None:
    await line.enqueue(entries(3))
    taken = await take(line, 2)
    [waiting] = [UUID(hex=one.decode()) for one in await line.redis.zrange(P + "waiting:a:t", 0, -1)]
    await line.move("p", [Move(lane, id_, None) for lane, id_ in taken] + [Move("a", waiting, None)])
    assert await take(line, 5) == []
    left = {key.decode().removeprefix(P) for key in await line.redis.keys("*")}
    assert left <= {"wake", "clock:a", "past:a", "pace:a", "seen"}
    assert await line.redis.pttl(P + "clock:a") > 0
    assert await line.redis.pttl(P + "past:a") > 0


async def test_the_time_until_something_is_due_is_told(line: Queue) -> None:
    assert (await line.claim("p", most=1, lease=9, payload=PAYLOAD)).next_ms is None
    await line.enqueue(entries(1, seconds=30))
    proposal = await line.claim("p", most=1, lease=9, payload=PAYLOAD)
    assert proposal.taken == []
    assert proposal.next_ms is not None
    assert 28_000 < proposal.next_ms <= 30_000
    await line.enqueue(entries(2))
    assert (await line.claim("p", most=1, lease=9, payload=PAYLOAD)).next_ms == 0


async def test_a_resting_lane_takes_nothing_until_its_time_and_holds_up_no_other(line: Queue) -> None:
    resting, other = entries(2, lane="a"), entries(2, lane="b")
    await line.enqueue(resting + other)
    await line.refused(Target("p", "a"), "", seconds=0.3)
    await line.refused(Target("p", "a"), "", seconds=0.01)  # a shorter one does not cut it short
    began = await now_ms(line)
    proposal = await line.claim("p", most=10, lease=9, payload=PAYLOAD)
    assert [(one.lane, one.id) for one in proposal.taken] == [("b", entry.id) for entry in other]
    assert proposal.next_ms is not None
    assert 100 < proposal.next_ms <= 300
    await line.enqueue(more := entries(1, lane="a"))  # new work does not wake it either
    assert await take(line, 10) == []

    async def taken() -> list[tuple[str, UUID]]:
        return await take(line, 10)

    assert await until(taken, seconds=5) == [("a", entry.id) for entry in resting + more]
    assert await now_ms(line) - began >= 290


async def test_lanes_of_another_provider_are_not_touched(line: Queue) -> None:
    mine, yours = entries(1), Entry(ids.new_id(), Target("q", "a"), "standard", datetime.now(UTC), "t")
    await line.enqueue([*mine, yours])
    assert await take(line, 10) == [("a", mine[0].id)]
    assert (await line.claim("q", most=10, lease=9, payload=PAYLOAD)).taken[0].id == yours.id


async def test_wake_lists_stay_short_and_end_a_wait(line: Queue) -> None:
    for _ in range(40):
        await line.enqueue(entries(1))
        await line.wake(queue.DELIVER_WAKE)
    for key in (P + "wake", queue.DELIVER_WAKE):
        assert await line.redis.llen(key) == 16
        before = await now_ms(line)
        await line.woken(key, seconds=5)
        assert await now_ms(line) - before < 4_000
    await line.woken("nothing", seconds=0.01)


async def test_announcements_carry_ids(line: Queue) -> None:
    wanted = [ids.new_id() for _ in range(3)]
    async with line.redis.pubsub() as channel:
        await channel.subscribe(CANCEL)

        async def heard() -> list[UUID]:
            message = await channel.get_message(ignore_subscribe_messages=True, timeout=0.1)
            return announced(message["data"]) if message else []

        await heard()
        await line.announce(CANCEL, wanted)
        assert await until(heard, seconds=5) == wanted
    assert announced(b"short") == []


async def test_a_lane_may_have_any_name(line: Queue) -> None:
    name = 'meta/llama "3":ü {x} ' + json.dumps(["\\"])
    await line.enqueue(entries(1, lane=name))
    [(lane, id_)] = await take(line, 1)
    assert lane == name
    await line.move("p", [Move(lane, id_, None)])
    assert await line.redis.zcard(P + f"queue:{name}") == 0
