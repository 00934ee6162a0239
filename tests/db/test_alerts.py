"""Alerts are raised once, taken by one at a time, and told until every channel has heard or a day has passed."""

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy import text

from shared.db import alerts
from shared.db import engine as db
from shared.db.alerts import AlertRow, NewAlert

ALL = {"ops": None, "chat": ["key.refused"]}


def new(subject: str = "s", kind: str = "key.refused", **fields: Any) -> NewAlert:
    return NewAlert(kind, subject, "It is refused.", **fields)


async def raised(engine: db.Engine, *wanted: NewAlert) -> None:
    async with db.transaction(engine) as connection:
        await alerts.add(connection, wanted)


async def listed(engine: db.Engine, tenant: str | None = None, **page: Any) -> Sequence[AlertRow]:
    async with db.transaction(engine) as connection:
        return await alerts.page(connection, tenant, **({"after": None, "limit": 100} | page))


async def taken(engine: db.Engine, channels: Any = ALL, *, limit: int = 100, lease: float = 60) -> Sequence[AlertRow]:
    async with db.transaction(engine) as connection:
        return await alerts.take(connection, channels, limit=limit, lease=lease)


async def due_again(engine: db.Engine) -> None:
    async with db.transaction(engine) as connection:
        await connection.execute(text("UPDATE alerts SET next_try_at = now()"))


async def test_a_kind_and_subject_are_raised_once(engine: db.Engine) -> None:
    await raised(engine, new("a", fields={"key": "main", "tokens": 5}), new("a"), new("b"))
    await raised(engine, new("a"), new("a", "circuit.opened"))
    rows = await listed(engine)
    assert [(row.kind, row.subject) for row in rows] == [
        ("circuit.opened", "a"), ("key.refused", "b"), ("key.refused", "a"),
    ]  # fmt: skip
    assert rows[2].fields == {"key": "main", "tokens": 5}
    assert {(row.pending, row.tries) for row in rows} == {(None, 0)}
    await raised(engine)


async def test_many_may_raise_the_same_ones_at_once_in_any_order(engine: db.Engine) -> None:
    wanted = [new(str(number)) for number in range(2_000)]
    await asyncio.gather(*(listed(engine) for _ in range(8)))  # so that connections are there
    await asyncio.gather(*(raised(engine, *wanted[::step]) for step in (1, -1) * 8))
    assert len(await listed(engine, limit=5_000)) == 2_000


async def test_what_postgres_cannot_store_is_shown_otherwise(engine: db.Engine) -> None:
    odd = new("s\0" + "x" * 5_000, fields={"a\0": ["b\0", {"c": "d\0"}]})
    await raised(engine, odd)
    [row] = await listed(engine)
    assert row.subject == "s\ufffd" + "x" * 498
    assert row.fields == {"a\ufffd": ["b\ufffd", {"c": "d\ufffd"}]}


async def test_pages_are_newest_first_and_a_tenants_own(engine: db.Engine) -> None:
    await raised(engine, *(new(f"t{number}", tenant_id="t") for number in range(3)), new("o", tenant_id="other"))
    await raised(engine, new("operator's"))
    assert len(await listed(engine)) == 5
    first = await listed(engine, "t", limit=2)
    rest = await listed(engine, "t", after=first[-1].id)
    assert [row.subject for row in (*first, *rest)] == ["t2", "t1", "t0"]
    assert await listed(engine, "nobody") == []


async def test_it_is_settled_once_which_channels_are_to_be_told(engine: db.Engine) -> None:
    await raised(engine, new("a"), new("b", "circuit.opened"))
    rows = {row.subject: row for row in await taken(engine)}
    assert (rows["a"].pending, rows["b"].pending) == (["chat", "ops"], ["ops"])
    assert {row.tries for row in rows.values()} == {1}
    await due_again(engine)
    again = {row.subject: row.pending for row in await taken(engine, {"new": None})}
    assert again == {"a": ["chat", "ops"], "b": ["ops"]}


async def test_without_channels_it_is_taken_once(engine: db.Engine) -> None:
    await raised(engine, new())
    [row] = await taken(engine, {})
    assert (row.pending, row.tries) == ([], 1)
    await due_again(engine)
    assert await taken(engine, {}) == []
    assert await taken(engine) == []


async def test_what_is_taken_is_nobody_elses_until_its_lease_ends(engine: db.Engine) -> None:
    await raised(engine, *(new(str(number)) for number in range(40)))
    found = await asyncio.gather(*(taken(engine, limit=10) for _ in range(4)))
    assert len({row.id for rows in found for row in rows}) == sum(map(len, found)) == 40
    assert await taken(engine) == []
    await due_again(engine)
    assert {row.tries for row in await taken(engine)} == {2}


async def test_told_put_off_and_given_up(engine: db.Engine) -> None:
    await raised(engine, new())
    [row] = await taken(engine)
    async with db.transaction(engine) as connection:
        await alerts.told(connection, row.id, "ops")
        await alerts.put_off(connection, row.id, tries=1, seconds=0, error="chat: answered 500")
    [row] = await taken(engine)
    assert (row.pending, row.error, row.tries) == (["chat"], "chat: answered 500", 2)
    async with db.transaction(engine) as connection:
        await alerts.give_up(connection, row.id, tries=1, error="late")  # of a try that somebody else has followed
        await alerts.told(connection, row.id, "chat")
    [row] = await listed(engine)
    assert (row.pending, row.error) == ([], None)

    await raised(engine, new("hopeless"))
    [row] = await taken(engine)
    async with db.transaction(engine) as connection:
        await alerts.give_up(connection, row.id, tries=1, error="no\0")
        await alerts.told(connection, row.id, "ops")
    row = (await listed(engine))[0]
    assert (row.pending, row.error) == ([], "no\ufffd")
    await due_again(engine)
    assert await taken(engine) == []


async def test_kinds_are_counted(engine: db.Engine) -> None:
    await raised(engine, new("a"), new("b"), new("c", "circuit.opened"))
    async with db.transaction(engine) as connection:
        assert await alerts.counts(connection, seconds=60) == {"circuit.opened": 1, "key.refused": 2}
        await connection.execute(text("UPDATE alerts SET at = now() - interval '2 days' WHERE subject = 'a'"))
        assert await alerts.counts(connection, seconds=86_400) == {"circuit.opened": 1, "key.refused": 1}
