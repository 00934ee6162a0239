"""Chunks on their way through Redis."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from shared import ids, queue
from shared.queue import Queue, RedisAway
from shared.queue.chunks import Chunks, Position, follows
from workers.relay import Relay


@pytest.fixture
async def chunks(redis: str) -> Any:
    client = queue.connect(redis)
    yield Queue(client).chunks
    await client.aclose(close_connection_pool=True)


def numbered(first: int, last: int) -> list[dict[str, Any]]:
    return [{"n": number} for number in range(first, last + 1)]


async def test_they_are_read_from_any_position(chunks: Chunks) -> None:
    id_ = ids.new_id()
    await chunks.write(id_, Position(1, 0), [])
    await chunks.write(id_, Position(1, 3), numbered(1, 3))
    await chunks.write(id_, Position(1, 4), numbered(4, 4))
    await chunks.write(id_, Position(2, 0), [])
    await chunks.write(id_, Position(2, 1), numbered(1, 1))
    everything = await chunks.read(id_, Position())
    assert [str(piece.at) for piece in everything] == ["1-0", "1-1", "1-2", "1-3", "1-4", "2-0", "2-1"]
    assert [piece.chunk for piece in everything] == [None, *numbered(1, 4), None, *numbered(1, 1)]
    for at, piece in enumerate(everything):
        assert await chunks.read(id_, piece.at) == everything[at + 1 :]
    before = Position()
    for piece in everything:
        assert follows(piece.at, before)
        before = piece.at
    assert not follows(everything[3].at, everything[1].at)
    assert not follows(Position(2, 1), Position(1, 4))


async def test_an_attempt_that_is_over_writes_nothing_any_more(chunks: Chunks) -> None:
    id_ = ids.new_id()
    await chunks.write(id_, Position(2, 0), [])
    with pytest.raises(RedisAway):
        await chunks.write(id_, Position(1, 9), numbered(9, 9))
    assert len(await chunks.read(id_, Position())) == 1
    relay = Relay(chunks, id_, 1)
    relay.begin()
    relay.send(numbered(1, 1))
    await relay.end()
    assert len(await chunks.read(id_, Position())) == 1


async def test_a_relay_writes_all_it_was_given_in_order(chunks: Chunks) -> None:
    id_ = ids.new_id()
    relay = Relay(chunks, id_, 3)
    relay.begin()
    for number in range(1, 501):
        relay.send(numbered(number, number))
        if number % 50 == 0:
            await asyncio.sleep(0.001)
    await relay.end()
    assert relay.sent == 500
    found, at = [], Position()
    while pieces := await chunks.read(id_, at):
        found += pieces
        at = pieces[-1].at
    assert [piece.chunk for piece in found if piece.chunk] == numbered(1, 500)


async def test_they_are_not_kept_for_ever(chunks: Chunks, redis: str) -> None:
    id_ = ids.new_id()
    await chunks.write(id_, Position(1, 0), [])
    client = Redis.from_url(redis)
    [key] = await client.keys("sluice:stream:*")
    assert 0 < await client.ttl(key) <= 900
    await client.aclose()


@pytest.mark.parametrize("shown", ["", "1", "-", "a-1", "1-b", "1-1-1", "²-1", "1-99999999999"])
def test_what_is_no_position(shown: str) -> None:
    assert Position.parse(shown) is None
