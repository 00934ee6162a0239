"""The suite's own fixtures: what one test leaves, the next does not see."""

import asyncpg
import pytest
from redis.asyncio import Redis

from shared.db import engine, migrate


@pytest.mark.parametrize("turn", [1, 2])
async def test_database_is_migrated_and_empty(database: str, turn: int) -> None:
    target = engine.create(database, pool_size=1, name="test")
    try:
        async with engine.transaction(target) as connection:
            assert await migrate.current(connection) == migrate.latest()
            await connection.exec_driver_sql("CREATE TABLE left_behind ()")
    finally:
        await target.dispose()


async def test_database_is_dropped_under_open_connections(database: str) -> None:
    abandoned = await asyncpg.connect(database, timeout=5)
    assert await abandoned.fetchval("SELECT current_database()") in database
    abandoned.terminate()


@pytest.mark.parametrize("turn", [1, 2])
async def test_redis_is_empty(redis: str, turn: int) -> None:
    async with Redis.from_url(redis, socket_timeout=5) as client:
        assert await client.dbsize() == 0
        await client.set("left", "behind")
