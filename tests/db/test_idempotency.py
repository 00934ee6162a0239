"""A key stands for one object: whoever took it first, also when many come at once."""

import asyncio
from uuid import UUID

from sqlalchemy import text

from shared import ids
from shared.db import engine as db
from shared.db import idempotency
from shared.db.idempotency import Reserved

Names = dict[tuple[str, str], Reserved]


def wanted(*names: tuple[str, str], request: bytes = b"h") -> Names:
    return {name: Reserved(request, ids.new_id()) for name in names}


async def reserve(engine: db.Engine, asked: Names) -> Names:
    return dict(await db.run(engine, lambda connection: idempotency.reserve(connection, asked)))


async def test_a_new_key_is_taken_and_a_taken_one_names_its_holder(engine: db.Engine) -> None:
    first = wanted(("a", "k"), ("a", "l"))
    assert await reserve(engine, first) == first
    second = wanted(("a", "k"), ("a", "new"), request=b"other")
    found = await reserve(engine, second)
    assert found == {("a", "k"): first["a", "k"], ("a", "new"): second["a", "new"]}


async def test_a_key_is_its_tenants(engine: db.Engine) -> None:
    first, second = wanted(("a", "k")), wanted(("b", "k"))
    assert await reserve(engine, first) == first
    assert await reserve(engine, second) == second


async def test_names_are_paired_and_not_crossed(engine: db.Engine) -> None:
    await reserve(engine, wanted(("a", "2"), ("b", "1")))
    asked = wanted(("a", "1"), ("b", "2"))
    assert await reserve(engine, asked) == asked


async def test_one_of_many_rivals_wins_and_all_are_told(engine: db.Engine) -> None:
    names = [("a", str(number)) for number in range(20)]
    # Each names them in another order, so that they would wait for each other if the statement did not sort.
    rivals = [wanted(*names[turn:], *names[:turn]) for turn in range(8)]
    found = await asyncio.gather(*(reserve(engine, rival) for rival in rivals))
    assert all(one == found[0] for one in found)
    offered: dict[tuple[str, str], set[UUID]] = {name: {rival[name].object_id for rival in rivals} for name in names}
    assert all(found[0][name].object_id in offered[name] for name in names)


async def test_who_waits_for_a_rival_that_gives_up_gets_the_key(engine: db.Engine) -> None:
    asked = wanted(("a", "k"))
    async with engine.connect() as rival:
        transaction = await rival.begin()
        await idempotency.reserve(rival, wanted(("a", "k")))
        waiting = asyncio.create_task(reserve(engine, asked))
        async with engine.connect() as looking:
            async with asyncio.timeout(10):
                blocked = 0
                while not blocked:
                    blocked = (
                        await looking.execute(
                            text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
                        )
                    ).scalar_one()
                    await looking.rollback()
        assert not waiting.done()
        await transaction.rollback()
    assert await waiting == asked


async def test_keys_are_kept_for_two_days_and_forgotten_a_few_at_a_time(engine: db.Engine) -> None:
    await reserve(engine, wanted(*(("a", str(number)) for number in range(5))))
    async with db.transaction(engine) as connection:
        assert await idempotency.prune(connection, limit=10) == 0
        await connection.execute(
            text("UPDATE idempotency_keys SET created_at = now() - interval '47 hours' WHERE key = '0'")
        )
        await connection.execute(
            text("UPDATE idempotency_keys SET created_at = now() - interval '49 hours' WHERE key IN ('1', '2', '3')")
        )
        assert [await idempotency.prune(connection, limit=2) for _ in range(3)] == [2, 1, 0]
        left = (await connection.execute(text("SELECT key FROM idempotency_keys ORDER BY key"))).scalars().all()
    assert left == ["0", "4"]
