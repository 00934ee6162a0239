"""How many calls tenants and keys may have under way: stored in Postgres, told to the queue again and again."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from sqlalchemy import text

from shared import ids
from shared.db import api_keys, audit, rate_limits
from shared.db import engine as db
from shared.db.api_keys import KeyFields
from shared.db.audit import Change
from shared.db.rate_limits import Numbers
from shared.queue import CAPS
from shared.queue.entries import flow
from tests.workers.pools import TENANT, Stores, stores
from workers.maintain import Maintenance


@pytest.fixture
async def held(database: str, redis: str) -> AsyncIterator[Stores]:
    async with stores(database, redis) as opened:
        yield opened


async def told(held: Stores) -> dict[str, int]:
    found = await held.queue.redis.hgetall(CAPS)
    return {name.decode(): int(most) for name, most in found.items()}


async def changed(connection: db.Connection) -> None:
    """Write down a change, as every change over HTTP is."""
    change = Change("limit.update", "limit", "limit_x", TENANT, None, None)
    await audit.record(connection, change, actor="bootstrap", request_id="r")


async def key(connection: db.Connection, **limits: int) -> UUID:
    made = ids.new_id()
    fields = KeyFields("k", scopes=["submit"], limits=limits)
    await api_keys.insert(connection, made, TENANT, fields, prefix="p", hash_=made.bytes * 2)
    return made


async def test_the_queue_is_told_what_is_limited_and_again_when_redis_was_emptied(held: Stores) -> None:
    maintenance = Maintenance(held.engine, held.queue, max_attempts=5)
    assert await maintenance.set_caps() == 0
    async with db.transaction(held.engine) as connection:
        own = await rate_limits.insert(
            connection, ids.new_id(), TENANT, Numbers(in_flight=7), team_id=None, end_user=None
        )
        assert own is not None
        await rate_limits.insert(connection, ids.new_id(), TENANT, Numbers(rpm=7), team_id=None, end_user="*")
        first, ended, _ = await key(connection, in_flight=2), await key(connection, in_flight=3), await key(connection)
        await api_keys.revoke(connection, TENANT, ended)
        await changed(connection)
    assert await maintenance.set_caps() == 2
    assert await told(held) == {flow(TENANT, None): 7, flow(TENANT, first): 2}
    await held.queue.redis.flushdb()
    assert await maintenance.set_caps() == 2
    assert await told(held) == {flow(TENANT, None): 7, flow(TENANT, first): 2}

    async with db.transaction(held.engine) as connection:
        await rate_limits.delete(connection, TENANT, own.id)
        await api_keys.revoke(connection, TENANT, first)
        await changed(connection)
    assert await maintenance.set_caps() == 0
    assert await told(held) == {}


async def test_what_an_earlier_process_said_is_taken_back_once(held: Stores) -> None:
    await held.queue.set_caps({(TENANT, None): 1})
    maintenance = Maintenance(held.engine, held.queue, max_attempts=5)
    assert await maintenance.set_caps() == 0
    assert await told(held) == {}
    await held.queue.set_caps({(TENANT, None): 1})
    await maintenance.set_caps()  # nothing is limited, and nothing was: Redis is left alone
    assert await told(held) == {flow(TENANT, None): 1}


async def test_postgres_is_read_again_after_a_change_only(held: Stores) -> None:
    maintenance = Maintenance(held.engine, held.queue, max_attempts=5)
    await maintenance.set_caps()
    async with db.transaction(held.engine) as connection:
        await connection.execute(
            text("INSERT INTO rate_limits (id, tenant_id, in_flight) VALUES (:id, :tenant, 4)"),
            {"id": ids.new_id(), "tenant": TENANT},
        )
    assert await maintenance.set_caps() == 0
    async with db.transaction(held.engine) as connection:
        await changed(connection)
    assert await maintenance.set_caps() == 1
