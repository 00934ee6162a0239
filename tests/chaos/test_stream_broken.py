"""What readers of a stream see when the worker is killed, and when Redis is emptied."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.events import follow, said, streamed
from tests.gateway import Gateway, gateway

pytestmark = pytest.mark.chaos


async def watched(sluice: Gateway, job: str, begun: asyncio.Event) -> list[tuple[str, str, Any]]:
    seen = []
    async for event in follow(sluice, job):
        seen.append(event)
        if event[0] == "chunk":
            begun.set()
    return seen


async def begin(sluice: Gateway) -> "tuple[str, asyncio.Task[list[tuple[str, str, Any]]]]":
    """Submit a streamed job and return it and who reads it, once its answer has begun."""
    _, job, _ = await sluice.ask("POST", "/v1/jobs", streamed(chunk_ms=150))
    begun = asyncio.Event()
    reading = asyncio.create_task(watched(sluice, job["id"], begun))
    async with asyncio.timeout(60):
        await begun.wait()
    return str(job["id"]), reading


def whole(events: list[tuple[str, str, Any]]) -> str:
    name, _, job = events[-1]
    assert name == "job.completed"
    return str(job["result"]["choices"][0]["message"]["content"])


async def test_readers_of_a_killed_workers_stream_are_told_and_get_the_next_attempts(
    tmp_path: Path, database: str, redis: str
) -> None:
    async with gateway(tmp_path, database, redis) as sluice:
        id_, reading = await begin(sluice)
        await sluice.kill("simulated")
        await sluice.start("other", "simulated")
        seen = await asyncio.wait_for(reading, 60)
        names = [name for name, _, _ in seen]
        anew = names.index("restarted")
        assert "chunk" in names[:anew]
        assert said([data for name, _, data in seen[anew:] if name == "chunk"]) == whole(seen)
        assert [row["status"] for row in await sluice.attempts(id_)] == ["lost", "completed"]


async def test_readers_are_told_of_chunks_that_redis_lost_and_the_result_is_whole(
    tmp_path: Path, database: str, redis: str
) -> None:
    client = Redis.from_url(redis)
    async with gateway(tmp_path, database, redis) as sluice:
        id_, reading = await begin(sluice)
        await client.flushall()
        seen = await asyncio.wait_for(reading, 60)
        again = [event async for event in follow(sluice, id_)]
        for events in (seen, again):
            chunks = said([data for name, _, data in events if name == "chunk"])
            assert chunks == whole(events) or "missing" in [name for name, _, _ in events]
        assert "missing" in [name for name, _, _ in again]
        assert [row["status"] for row in await sluice.attempts(id_)] == ["completed"]
    await client.aclose()
