"""The count of the last minute, on a clock of the test's own: never more than the limit, and no less than it admits."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import pytest
from redis.asyncio import Redis

from shared import queue
from shared.errors import Unavailable
from shared.rates import PREFIX, Asked, Rates, Standing

START = 1_800_000_000_000.0
MINUTE = 60_000.0
SLOT = 100.0


class Counting:
    """The count, and the clock in ms that it goes by."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.now = START
        self.rates = Rates(redis, clock=lambda: self.now)

    async def ask(self, *asked: Asked) -> list[Standing]:
        return await self.rates.ask(asked)

    async def one(self, requests: int = 1, tokens: int = 0, *, rpm: int = 0, tpm: int = 0, of: str = "s") -> Standing:
        [standing] = await self.ask(Asked(of, rpm, tpm, requests, tokens))
        return standing


@pytest.fixture
async def counting(redis: str) -> AsyncIterator[Counting]:
    client = queue.connect(redis)
    yield Counting(client)
    await client.aclose(close_connection_pool=True)


def most_in_a_minute(admitted: Sequence[tuple[float, int]]) -> int:
    """Return how much was admitted in the fullest minute; what came exactly a minute ago is out of it."""
    return max(sum(size for at, size in admitted if start <= at < start + MINUTE) for start, _ in admitted)


async def test_a_minute_holds_exactly_the_limit_and_so_does_every_other(counting: Counting) -> None:
    for _ in range(3):
        waits = [(await counting.one(rpm=5)).wait_ms for _ in range(7)]
        assert waits == [0] * 5 + [MINUTE] * 2
        counting.now += MINUTE
    counting.now += 10 * MINUTE
    assert [(await counting.one(rpm=5)).wait_ms == 0 for _ in range(6)] == [True] * 5 + [False]


async def test_the_window_slides(counting: Counting) -> None:
    for _ in range(10):  # one every six seconds
        assert (await counting.one(rpm=10)).wait_ms == 0
        counting.now += 6_000
    for _ in range(30):
        assert (await counting.one(rpm=10)).wait_ms == 0
        assert (await counting.one(rpm=10)).wait_ms == 6_000
        counting.now += 6_000


@pytest.mark.parametrize("seed", range(6))
async def test_no_minute_ever_holds_more_and_none_waits_longer_than_it_must(counting: Counting, seed: int) -> None:
    rng = random.Random(seed)
    rpm, tpm = rng.choice([(7, 0), (0, 900), (12, 900), (40, 2_000)])
    admitted: list[tuple[float, int, int]] = []
    refused = 0
    for _ in range(600):
        counting.now += rng.choice([0.0, 0.4, 30.0, 99.9, 100.0, 900.0, 4_000.0]) * rng.random() * 2
        size = rng.choice([1, 1, 1, 3]), rng.randrange(150)
        standing = await counting.one(*size, rpm=rpm, tpm=tpm)
        if standing.wait_ms:
            refused += 1
            # With a slot more than the minute, what came is sure to be out: it was needed to refuse.
            lately = [one for one in admitted if one[0] > counting.now - MINUTE - SLOT - 1]
            assert (rpm and sum(one[1] for one in lately) + size[0] > rpm) or (
                tpm and sum(one[2] for one in lately) + size[1] > tpm
            )
        else:
            admitted.append((counting.now, *size))
    assert refused
    assert not rpm or most_in_a_minute([(at, requests) for at, requests, _ in admitted]) <= rpm
    assert not tpm or most_in_a_minute([(at, tokens) for at, _, tokens in admitted]) <= tpm


async def test_who_waits_as_long_as_told_is_admitted(counting: Counting) -> None:
    rng = random.Random(1)
    for _ in range(300):
        size = rng.randrange(1, 4), rng.randrange(400)
        standing = await counting.one(*size, rpm=20, tpm=1_000)
        if standing.wait_ms:
            counting.now += standing.wait_ms - 1
            assert (await counting.one(*size, rpm=20, tpm=1_000)).wait_ms > 0
            counting.now += 1
            assert (await counting.one(*size, rpm=20, tpm=1_000)).wait_ms == 0
        counting.now += rng.randrange(2_000)


async def test_all_subjects_admit_or_none_counts(counting: Counting) -> None:
    wide, narrow = Asked("wide", 10, 0, 1, 5), Asked("narrow", 0, 12, 1, 5)
    for _ in range(2):
        assert [one.wait_ms for one in await counting.ask(wide, narrow)] == [0, 0]
    for _ in range(3):
        first, second = await counting.ask(wide, narrow)
        assert (first.requests, first.wait_ms) == (2, 0)
        assert (second.tokens, second.requests_ms, second.tokens_ms) == (10, 0, MINUTE)
        assert [one.wait_ms for one in await counting.ask(narrow, wide)] == [MINUTE, 0]
    assert (await counting.one(of="wide", rpm=10)).requests == 3


async def test_what_is_larger_than_its_limit_goes_alone_and_is_owed(counting: Counting) -> None:
    assert (await counting.one(rpm=10)).wait_ms == 0
    assert (await counting.one(25, rpm=10)).wait_ms == MINUTE
    counting.now += MINUTE
    standing = await counting.one(25, rpm=10)
    assert (standing.requests, standing.full_ms, standing.wait_ms) == (10, 2.5 * MINUTE, 0)
    counting.now += 2.5 * MINUTE - 1
    assert (await counting.one(rpm=10)).wait_ms == 1
    counting.now += 1
    assert [(await counting.one(rpm=10)).wait_ms == 0 for _ in range(11)] == [True] * 10 + [False]


async def test_what_is_owed_is_reckoned_by_the_limit_of_today(counting: Counting) -> None:
    await counting.one(1_000, rpm=10)  # a hundred minutes
    assert (await counting.one(rpm=10)).wait_ms == 100 * MINUTE
    assert (await counting.one(rpm=500)).wait_ms == 2 * MINUTE
    assert (await counting.one(rpm=2_000)).wait_ms == 0


async def test_a_lower_limit_holds_at_once(counting: Counting) -> None:
    for _ in range(8):
        await counting.one(rpm=10)
    standing = await counting.one(rpm=3)
    assert (standing.requests, standing.wait_ms) == (8, MINUTE)


async def test_tokens_and_requests_each_have_their_wait(counting: Counting) -> None:
    await counting.one(1, 60, rpm=3, tpm=100)
    counting.now += 10_000
    await counting.one(2, 10, rpm=3, tpm=100)
    standing = await counting.one(1, 50, rpm=3, tpm=100)
    assert (standing.requests_ms, standing.tokens_ms) == (50_000, 50_000)
    standing = await counting.one(2, 95, rpm=3, tpm=100)
    assert (standing.requests_ms, standing.tokens_ms) == (60_000, 60_000)
    standing = await counting.one(1, 20, rpm=3, tpm=100)
    assert (standing.requests_ms, standing.tokens_ms, standing.full_ms) == (50_000, 0, 60_000)


async def test_the_keys_are_few_small_and_end_by_themselves(counting: Counting) -> None:
    for _ in range(3_000):
        counting.now += 37
        await counting.one(1, 7, rpm=10**9, tpm=10**12)
    await counting.one(10**7, of="owing", rpm=10**6)
    keys = [key.decode() for key in await counting.redis.keys(PREFIX + "*")]
    assert sorted(keys) == [f"{PREFIX}owing:owed", f"{PREFIX}s"]
    assert await counting.redis.llen(f"{PREFIX}s") <= MINUTE / SLOT + 2
    assert 0 < await counting.redis.pttl(f"{PREFIX}s") <= MINUTE + 1_000
    assert 9 * MINUTE < await counting.redis.pttl(f"{PREFIX}owing:owed") <= 10 * MINUTE


async def test_many_at_once_over_two_clients_share_one_count(redis: str, counting: Counting) -> None:
    """Redis's own clock, and what arrives together in one call."""
    other = queue.connect(redis)
    try:
        doors = Rates(counting.redis), Rates(other)
        asked = [Asked("s", 100, 0, 1, 0)]
        standings = await asyncio.gather(*(doors[number % 2].ask(asked) for number in range(400)))
        admitted = sorted(one.requests for [one] in standings if not one.wait_ms)
        assert admitted == list(range(1, 101))
        assert all(after - before == 1 for before, after in pairwise(admitted))
        assert all(0 < one.wait_ms <= MINUTE for [one] in standings if one.wait_ms)
    finally:
        await other.aclose(close_connection_pool=True)


async def test_without_redis_it_is_unavailable(tmp_path: object) -> None:
    client = queue.connect(f"unix://{tmp_path}/none.sock")
    with pytest.raises(Unavailable):
        await Rates(client).ask([Asked("s", 1, 0, 1, 0)])
    await client.aclose(close_connection_pool=True)
