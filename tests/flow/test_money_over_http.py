"""Money over HTTP, with real workers: a held job is let go, a job and a batch keep to their own limits."""

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest_asyncio

from tests.gateway import Gateway, gateway, line, until

CONFIG = """
providers:
  simulated:
    kind: simulated
    base_url: UPSTREAM/v1
    models:
      dear: {price: {input: 1, output: 10}, max_output: 20000}
models:
  dear: {targets: [simulated/dear]}
"""
BUDGETS = "/v1/admin/budgets"


@pytest_asyncio.fixture
async def sluice(tmp_path: Path, database: str, redis: str) -> AsyncIterator[Gateway]:
    parts = ("upstream", "api", "maintain", "simulated")
    async with gateway(tmp_path, database, redis, parts=parts, config=CONFIG) as running:
        yield running


def dear(*, answer: int = 50, **options: Any) -> dict[str, Any]:
    return line(model="dear", simulate={"output_tokens": answer}, **options)


async def test_a_held_job_runs_as_soon_as_its_budget_allows(sluice: Gateway) -> None:
    asked = {"scope": {"model": "dear"}, "window": "month", "limit_usd": "0", "on_exhausted": "hold"}
    _, budget, _ = await sluice.ask("POST", BUDGETS, asked)
    _, job, _ = await sluice.ask("POST", "/v1/jobs", dear())
    ends_at = budget["present"]["ends_at"]

    async def run_at() -> Any:
        return (await sluice.job(job["id"]))["run_at"]

    await until(run_at, lambda moment: moment == ends_at, what="held until the window ends")
    assert (await sluice.ask("PATCH", f"{BUDGETS}/{budget['id']}", {"limit_usd": "1.00"}))[0] == 200
    ended = await sluice.ended(job["id"])
    assert (ended["status"], ended["attempts"] >= 1) == ("completed", True)
    _, budget, _ = await sluice.ask("GET", f"{BUDGETS}/{budget['id']}")
    assert budget["present"]["spent_usd"] == ended["cost_usd"]
    assert budget["present"]["reserved_usd"] == "0.00"


async def test_a_job_and_a_batch_keep_to_what_they_may_cost(sluice: Gateway) -> None:
    _, job, _ = await sluice.ask("POST", "/v1/jobs", dear(answer=5_000, max_cost_usd="0.01"))
    ended = await sluice.ended(job["id"])
    assert ended["status"] == "completed"
    assert Decimal("0.005") < Decimal(ended["cost_usd"]) <= Decimal("0.01")
    requests = [dear(answer=100) for _ in range(40)]  # 0.001 USD each
    for one in requests:
        one["body"]["max_tokens"] = 100
    _, batch, _ = await sluice.ask("POST", "/v1/batches", {"requests": requests, "max_cost_usd": "0.0105"})

    async def stands() -> Any:
        return (await sluice.ask("GET", f"/v1/batches/{batch['id']}"))[1]

    done = await until(stands, lambda one: one["status"] == "completed", what="the batch's end")
    assert (done["request_counts"]["completed"], done["request_counts"]["failed"]) == (10, 30)
    assert Decimal(done["cost_usd"]) <= Decimal(done["max_cost_usd"])
    _, failed, _ = await sluice.ask("GET", f"/v1/jobs?batch_id={batch['id']}&status=failed")
    assert {one["error"]["code"] for one in failed["data"]} == {"max_cost_exceeded"}


async def test_an_estimate_is_not_passed(sluice: Gateway) -> None:
    requests = [dear(text="word " * number, answer=60) for number in (1, 100, 1_000)]
    for one in requests:
        one["body"]["max_tokens"] = 60
    _, estimate, _ = await sluice.ask("POST", "/v1/estimate", {"requests": requests})
    _, batch, _ = await sluice.ask("POST", "/v1/batches", {"requests": requests})

    async def stands() -> Any:
        return (await sluice.ask("GET", f"/v1/batches/{batch['id']}"))[1]

    done = await until(stands, lambda one: one["status"] == "completed", what="the batch's end")
    assert Decimal(done["cost_usd"]) <= Decimal(estimate["cost_usd"]["most"])
    assert done["usage"]["output_tokens"] == estimate["output_tokens"]["expected"] == 180

    async def expected() -> Any:
        _, found, _ = await sluice.ask("POST", "/v1/estimate", dear())
        return found["output_tokens"]["expected"]

    assert await until(expected, lambda number: number < 500, what="what was used is known") == 60
