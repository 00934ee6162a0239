"""Budgets kept by real workers: spend stays within them, whatever the answers' lengths, and every cent is booked."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest_asyncio
from sqlalchemy import text

from shared import ids
from shared.db import budgets
from shared.db import engine as db
from shared.db.budgets import NewBudget
from tests.gateway import Gateway, gateway, line, until

# A token of output costs 10,000 nano-dollars, one of input 1,000.
CONFIG = """
providers:
  simulated:
    kind: simulated
    base_url: UPSTREAM/v1
    limits: {concurrency: 64}
    models:
      dear: {price: {input: 1, output: 10}, max_output: 20000}
      cheap: {price: {input: 0.01, output: 0.1}, max_output: 20000}
models:
  dear: {targets: [simulated/dear]}
  cheap: {targets: [simulated/cheap]}
"""
CENT = 10**7


@pytest_asyncio.fixture
async def sluice(tmp_path: Path, database: str, redis: str) -> AsyncIterator[Gateway]:
    parts = ("upstream", "api", "maintain", "simulated")
    async with gateway(tmp_path, database, redis, parts=parts, config=CONFIG) as running:
        await running.start("second", "simulated")
        yield running


@pytest_asyncio.fixture
async def engine(database: str) -> AsyncIterator[db.Engine]:
    made = db.create(database, pool_size=2, name="test")
    yield made
    await made.dispose()


async def budget(engine: db.Engine, limit: int, **fields: Any) -> UUID:
    async with db.transaction(engine) as connection:
        new = NewBudget(tenant_id="default", limit_nanos=limit, **{"period": "total", **fields})
        return await budgets.insert(connection, new)


async def one(engine: db.Engine, query: str, **values: Any) -> Any:
    async with db.transaction(engine) as connection:
        return (await connection.execute(text(query), values)).one()


async def booked(engine: db.Engine, id_: UUID) -> int:
    """Return what a budget has spent, having seen that the ledger, the attempts and the hours say the same."""
    window = await one(engine, "SELECT * FROM budget_windows WHERE budget_id = :id", id=id_)
    assert window.reserved_nanos == 0
    entries = await one(
        engine,
        """SELECT COALESCE(sum(nanos) FILTER (WHERE kind IN ('settle', 'adjust')), 0) AS spent,
            COALESCE(sum(nanos) FILTER (WHERE kind = 'reserve'), 0) - sum(reserved_nanos) AS held
        FROM ledger WHERE :id = ANY(windows)""",
        id=window.id,
    )
    attempts = await one(engine, "SELECT COALESCE(sum(cost_nanos), 0) AS spent FROM attempts")
    hours = await one(engine, "SELECT COALESCE(sum(cost_nanos), 0) AS spent FROM usage_hours WHERE label = ''")
    assert (entries.spent, entries.held) == (window.spent_nanos, 0)
    assert attempts.spent == hours.spent == window.spent_nanos
    assert (await one(engine, "SELECT count(*) AS n FROM reservations")).n == 0
    return int(window.spent_nanos)


async def sent(sluice: Gateway, tokens: list[int], *, model: str = "dear", **body: Any) -> str:
    lines = [
        line(model=model, simulate={"output_tokens": n, "latency_ms": 30, "key": str(i)}) for i, n in enumerate(tokens)
    ]
    for each in lines:
        each["body"] |= body
    status, batch, _ = await sluice.ask("POST", "/v1/batches", {"requests": lines})
    assert status == 202, batch
    return str(batch["id"])


async def counts(sluice: Gateway, batch: str) -> dict[str, int]:
    return dict((await sluice.ask("GET", f"/v1/batches/{batch}"))[1]["request_counts"])


async def all_ended(sluice: Gateway, batch: str) -> dict[str, int]:
    async def ended() -> dict[str, int]:
        return await counts(sluice, batch)

    return await until(
        ended, lambda found: found["completed"] + found["failed"] == found["total"], what=f"all ended\n{sluice.logs()}"
    )


async def test_concurrent_answers_of_any_length_stay_within_a_hard_budget_and_use_it(
    sluice: Gateway, engine: db.Engine
) -> None:
    id_ = await budget(engine, 100 * CENT)
    tokens = [100 + 11 * (i * 7919 % 100) for i in range(220)]  # 100 to 1,189 tokens: about 1.4 dollars in all
    found = await all_ended(sluice, await sent(sluice, tokens))
    spent = await booked(engine, id_)
    assert 97 * CENT <= spent <= 100 * CENT, (spent, found)
    assert found["failed"] > 0
    cut = await one(engine, 'SELECT count(*) AS n FROM results WHERE body LIKE \'%"finish_reason":"length"%\'::bytea')
    assert cut.n <= 2  # but for the last of them, answers are whole
    failed = (await sluice.ask("GET", "/v1/jobs?status=failed&limit=100"))[1]["data"]
    assert Counter(job["error"]["code"] for job in failed) == {"insufficient_quota": found["failed"]}
    assert "of 1.00 USD" in failed[0]["error"]["message"]
    alerts = await one(engine, "SELECT array_agg(DISTINCT kind ORDER BY kind) AS kinds, count(*) AS n FROM alerts")
    assert (alerts.kinds, alerts.n) == (["budget.exhausted", "budget.threshold_crossed"], 3)  # at 50 and 80 %


async def test_a_call_that_fails_costs_what_it_used_and_frees_what_was_held(sluice: Gateway, engine: db.Engine) -> None:
    id_ = await budget(engine, 10**18)  # the largest there can be
    fails = ({"status": 500}, {"status": 429, "retry_after": 0.1}, "reset", {"status": 400})
    requests = [
        line(model="dear", simulate={"output_tokens": 100, "fail": [fail], "key": str(i)})
        for i, fail in enumerate(fails)
    ]
    _, batch, _ = await sluice.ask("POST", "/v1/batches", {"requests": requests})
    found = await all_ended(sluice, batch["id"])
    assert (found["completed"], found["failed"]) == (3, 1)
    spent = await booked(engine, id_)
    assert spent >= 3 * 100 * 10_000
    kinds = await one(
        engine,
        """SELECT count(*) FILTER (WHERE kind = 'reserve') AS r, count(*) FILTER (WHERE kind = 'settle') AS s,
            count(*) FILTER (WHERE kind = 'release') AS f FROM ledger""",
    )
    assert kinds.r == kinds.s + kinds.f
    assert kinds.f >= 3


async def test_what_a_full_budget_holds_runs_when_it_is_raised(sluice: Gateway, engine: db.Engine, redis: str) -> None:
    id_ = await budget(engine, 3 * CENT, period="month", on_exhausted="hold")
    batch = await sent(sluice, [2_000] * 5, max_tokens=2_000)

    async def held() -> int:
        return int((await one(engine, "SELECT count(*) AS n FROM jobs WHERE held_by = :id", id=id_)).n)

    assert await until(held, lambda n: n >= 3, what=sluice.logs()) == 4  # the second of 2 cents does not fit any more
    row = await one(engine, "SELECT status, run_at, charged FROM jobs WHERE held_by = :id LIMIT 1", id=id_)
    window = await one(engine, "SELECT ends_at FROM budget_windows WHERE budget_id = :id", id=id_)
    assert (row.status, row.run_at, row.charged) == ("queued", window.ends_at, 0)
    shown = (await sluice.ask("GET", f"/v1/jobs?batch_id={batch}&status=queued"))[1]["data"]
    assert {job["held_by"] for job in shown} == {ids.show("budget", id_)}
    alone = await sluice.job(shown[0]["id"])
    assert alone["queue"]["position"] is None
    assert 0 < alone["queue"]["eta_seconds"] <= (window.ends_at - datetime.now(UTC)).total_seconds() + 1
    async with db.transaction(engine) as connection:
        await budgets.change(connection, "default", id_, {"limit_nanos": 100 * CENT})
        rows = await budgets.let_go(connection, "default", id_)
    assert len(rows) == 4
    # Nobody tells Redis: maintenance finds that they are due.
    assert (await all_ended(sluice, batch))["completed"] == 5
    assert await booked(engine, id_) >= 5 * 2 * CENT


async def test_a_full_budget_may_send_jobs_to_a_cheaper_model(sluice: Gateway, engine: db.Engine) -> None:
    id_ = await budget(engine, 3 * CENT, on_exhausted="downgrade", downgrade_to="cheap")
    found = await all_ended(sluice, await sent(sluice, [2_000] * 5, max_tokens=2_000))
    assert found["completed"] == 5
    models = Counter(call["model"] for call in sluice.calls())
    assert models["cheap"] == 4
    rows = await one(engine, "SELECT count(*) FILTER (WHERE downgraded) AS n FROM jobs")
    assert rows.n == 4
    listed = (await sluice.ask("GET", "/v1/jobs"))[1]["data"]
    assert Counter((job["downgraded"], job["deployment"]) for job in listed) == {
        (True, "simulated/cheap"): 4,
        (False, "simulated/dear"): 1,
    }
    assert await booked(engine, id_) <= 3 * CENT


async def test_a_killed_worker_s_calls_are_booked_at_what_was_held_until_they_are_known(
    sluice: Gateway, engine: db.Engine
) -> None:
    id_ = await budget(engine, 100 * CENT)
    await sluice.kill("second")
    batch = await sent(sluice, [100] * 3)
    await all_ended(sluice, batch)
    slow = await sluice.submit(model="dear", simulate={"output_tokens": 100, "latency_ms": 4_000})

    async def called() -> int:
        return len(sluice.calls(slow))

    await until(called)
    await sluice.kill("simulated")
    await sluice.start("simulated", "simulated")
    assert (await sluice.ended(slow))["status"] == "completed"
    lost = await one(engine, "SELECT * FROM attempts WHERE status = 'lost'")
    assert lost.estimated
    assert lost.cost_nanos > 100 * 10_000
    whole = await one(engine, "SELECT max(cost_nanos) AS cost FROM attempts WHERE status = 'completed'")
    assert await booked(engine, id_) == 4 * whole.cost + lost.cost_nanos


async def test_one_user_s_tight_budget_does_not_hold_up_others_of_the_same_key(
    sluice: Gateway, engine: db.Engine
) -> None:
    await budget(engine, 4 * CENT, end_user="greedy")
    slow = line(model="dear", simulate={"output_tokens": 10, "latency_ms": 5_000})
    slow["body"] |= {"user": "greedy", "max_tokens": 3_000}
    _, first, _ = await sluice.ask("POST", "/v1/jobs", slow)

    async def called() -> int:
        return len(sluice.calls(first["id"]))

    await until(called)
    waiting = line(model="dear", simulate={"output_tokens": 10})
    waiting["body"] |= {"user": "greedy", "max_tokens": 3_000}
    _, batch, _ = await sluice.ask("POST", "/v1/batches", {"requests": [waiting] * 50})
    modest = await sluice.ended(await sluice.submit(model="dear", simulate={"output_tokens": 10}))
    assert modest["status"] == "completed"
    assert (await sluice.job(first["id"]))["status"] == "in_progress"
    assert (await counts(sluice, batch["id"]))["failed"] == 0
    # Those who step aside have not been tried.
    shown = (await sluice.ask("GET", f"/v1/jobs?batch_id={batch['id']}&limit=100"))[1]["data"]
    assert {job["attempts"] for job in shown if job["status"] == "queued"} == {0}
    assert {job["started_at"] for job in shown if job["status"] == "queued"} == {None}
