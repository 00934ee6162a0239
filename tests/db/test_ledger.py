"""The ledger: one settlement for each attempt that cost something, whatever became of it, and proof that all agree."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from shared.db import budgets, claims, ledger, reservations
from shared.db import engine as db
from shared.db.budgets import NewBudget
from shared.db.claims import Claim
from shared.db.reservations import Reservation
from tests.db.conftest import TENANT, apply, claimed, end, stored
from workers import books

HELD = 5_000
_COPIED = """
INSERT INTO attempts (job_id, number, tenant_id, provider, status, charged, started_at, ended_at, input_tokens)
SELECT job_id, 9, tenant_id, provider, status, charged, started_at, ended_at, 1 FROM attempts
"""


async def rows(engine: db.Engine, query: str, **values: object) -> Sequence[Any]:
    async with db.transaction(engine) as connection:
        return (await connection.execute(text(query), values)).all()


async def entries(engine: db.Engine) -> list[tuple[str, int, int, int]]:
    found = await rows(engine, "SELECT kind, nanos, reserved_nanos, attempt FROM ledger ORDER BY attempt, number")
    return [tuple(one) for one in found]


async def differences(engine: db.Engine) -> list[str]:
    async with db.transaction(engine) as connection:
        found = await ledger.differences(connection, since=datetime.now(UTC) - timedelta(hours=1))
    return [str(one.what) for one in found]


async def held(engine: db.Engine, **fields: Any) -> tuple[UUID, Claim]:
    """Return a budget and a claimed job for which something is held of it."""
    async with db.transaction(engine) as connection:
        new = NewBudget(tenant_id=TENANT, limit_nanos=10**9, period="total", **fields)
        budget = await budgets.insert(connection, new)
    [job] = await stored(engine, 1)
    return budget, await held_again(engine, job.id)


async def held_again(engine: db.Engine, job: UUID) -> Claim:
    _, [claim] = await claimed(engine, [job])
    async with db.transaction(engine) as connection:
        [standing] = (await reservations.open_windows(connection, claim.budgets)).values()
        one = Reservation(claim.id, claim.attempt, TENANT, HELD, HELD, [standing.window.id])
        await reservations.reserve(connection, [one])
    return claim


async def window(engine: db.Engine, budget: UUID) -> tuple[int, int]:
    [found] = await rows(engine, "SELECT * FROM budget_windows WHERE budget_id = :id", id=budget)
    return found.spent_nanos, found.reserved_nanos


async def test_an_attempt_is_settled_and_what_was_held_is_freed_once(engine: db.Engine) -> None:
    budget, claim = await held(engine)
    assert await window(engine, budget) == (0, HELD)
    for _ in range(2):  # a commit whose answer was lost is repeated
        await apply(engine, end(claim))
        assert await entries(engine) == [("reserve", HELD, 0, 1), ("settle", 1_000, HELD, 1)]
        assert await window(engine, budget) == (1_000, 0)
    assert await differences(engine) == []


async def test_an_attempt_that_cost_nothing_frees_what_was_held(engine: db.Engine) -> None:
    budget, claim = await held(engine)
    change = end(claim, "queued")
    assert change.attempt_end is not None
    nothing = replace(change.attempt_end, input_tokens=None, output_tokens=None, cost_nanos=None, status="released")
    await apply(engine, replace(change, attempt_end=nothing))
    assert await entries(engine) == [("reserve", HELD, 0, 1), ("release", 0, HELD, 1)]
    assert await window(engine, budget) == (0, 0)
    again = await held_again(engine, claim.id)
    await apply(engine, end(again))
    assert await window(engine, budget) == (1_000, 0)
    assert await differences(engine) == []


async def test_a_lost_attempt_costs_what_was_held_until_its_answer_comes(engine: db.Engine) -> None:
    budget, claim = await held(engine)
    change = end(claim, "queued")
    assert change.attempt_end is not None
    lost = replace(change.attempt_end, input_tokens=None, output_tokens=None, cost_nanos=None, status="lost")
    await apply(engine, replace(change, attempt_end=lost))
    [attempt] = await rows(engine, "SELECT cost_nanos, estimated FROM attempts")
    assert tuple(attempt) == (HELD, True)
    assert await window(engine, budget) == (HELD, 0)
    again = await held_again(engine, claim.id)
    await apply(engine, end(again), end(claim))  # the late one
    assert await entries(engine) == [
        ("reserve", HELD, 0, 1),
        ("settle", HELD, HELD, 1),
        ("adjust", 1_000 - HELD, 0, 1),
        ("reserve", HELD, 0, 2),
        ("settle", 1_000, HELD, 2),
    ]
    assert await window(engine, budget) == (2_000, 0)
    [used] = await rows(engine, "SELECT sum(cost_nanos), sum(attempts), sum(jobs), sum(errors) FROM usage_hours")
    assert tuple(used) == (2_000, 2, 1, 0)
    assert await differences(engine) == []


async def test_without_a_budget_there_is_one_entry_and_it_cannot_be_changed(engine: db.Engine) -> None:
    [job] = await stored(engine, 1)
    _, [claim] = await claimed(engine, [job.id])
    await apply(engine, end(claim))
    assert await entries(engine) == [("settle", 1_000, 0, 1)]
    for statement in ("UPDATE ledger SET nanos = 0", "DELETE FROM ledger"):
        with pytest.raises(Exception, match="append-only"):
            await rows(engine, statement)


async def test_usage_is_counted_for_everything_for_the_user_and_for_each_tag(engine: db.Engine) -> None:
    made = [*await stored(engine, 2, end_user="ann", tags=["team=a", "kind=x"]), *await stored(engine, 1)]
    _, held_jobs = await claimed(engine, [job.id for job in made])
    await apply(engine, *(end(claim, "failed" if claim.id == made[0].id else "completed") for claim in held_jobs))
    found = await rows(engine, "SELECT label, sum(jobs) AS jobs, sum(errors), sum(output_tokens), sum(cost_nanos) "
                               "FROM usage_hours GROUP BY label ORDER BY label")  # fmt: skip
    assert [tuple(one) for one in found] == [
        ("", 3, 1, 18, 3_000),
        ("tag:kind=x", 2, 1, 12, 2_000),
        ("tag:team=a", 2, 1, 12, 2_000),
        ("user:ann", 2, 1, 12, 2_000),
    ]


async def test_a_budget_made_later_begins_with_what_its_window_has_seen(engine: db.Engine) -> None:
    made = [*await stored(engine, 2, end_user="ann"), *await stored(engine, 1)]
    _, held_jobs = await claimed(engine, [job.id for job in made])
    await apply(engine, *map(end, held_jobs))
    async with db.transaction(engine) as connection:
        new = NewBudget(tenant_id=TENANT, limit_nanos=10**9, period="day", end_user="ann")
        budget = await budgets.insert(connection, new)
    assert await window(engine, budget) == (2_000, 0)
    assert await differences(engine) == []


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE attempts SET cost_nanos = cost_nanos + 1", "attempts"),
        ("UPDATE usage_hours SET cost_nanos = cost_nanos + 1 WHERE label = ''", "usage"),
        ("UPDATE budget_windows SET spent_nanos = spent_nanos - 1", "spent"),
        ("UPDATE budget_windows SET reserved_nanos = 7", "reserved"),
        ("DELETE FROM usage_hours", "usage"),
        (_COPIED, "attempts"),
    ],
)
async def test_every_difference_is_found_and_alerted_on(engine: db.Engine, statement: str, what: str) -> None:
    _, claim = await held(engine)
    await apply(engine, end(claim))
    async with db.transaction(engine) as connection:
        await connection.execute(text(statement))
    assert await differences(engine) == [what]
    assert await books.check(engine) == 1
    [alert] = await rows(engine, "SELECT kind, message FROM alerts")
    assert alert.kind == "ledger.difference"
    assert what in alert.message


async def test_what_is_held_for_an_attempt_that_nobody_ends_is_freed(engine: db.Engine) -> None:
    budget, first = await held(engine)
    assert await books.free_abandoned(engine) == 0
    async with db.transaction(engine) as connection:  # the claim's answer was lost: it is claimed anew
        [again] = await claims.claim(
            connection, (await rows(engine, "SELECT lease_id FROM jobs"))[0].lease_id, "p", {first.id: "m"}
        )
    assert again.attempt == 2
    assert await books.free_abandoned(engine) == 1
    assert await window(engine, budget) == (0, 0)
    assert await differences(engine) == []


async def test_exhaustion_is_foreseen_once_a_window(engine: db.Engine) -> None:
    async with db.transaction(engine) as connection:
        new = NewBudget(tenant_id=TENANT, limit_nanos=10_000, period="month")
        budget = await budgets.insert(connection, new)
        begun = """UPDATE budget_windows
            SET starts_at = now() - interval '10 days', ends_at = now() + interval '20 days',
            spent_nanos = 3000, opening_nanos = 3000 WHERE budget_id = :id"""
        await connection.execute(text(begun), {"id": budget})
    assert await books.foresee(engine) == 0  # it will have spent 9,000
    async with db.transaction(engine) as connection:
        await connection.execute(text("UPDATE budget_windows SET spent_nanos = 4000, opening_nanos = 4000"))
    assert [await books.foresee(engine), await books.foresee(engine)] == [1, 0]
