"""One job's whole life, from outside."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests.gateway import Gateway, gateway, line, until


@pytest.fixture(scope="module")
async def sluice(
    tmp_path_factory: pytest.TempPathFactory, module_database: str, redis_url: str
) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path_factory.mktemp("gateway"), module_database, redis_url) as running:
        yield running


async def test_a_job_is_accepted_run_and_answered(sluice: Gateway) -> None:
    status, job, headers = await sluice.ask("POST", "/v1/jobs", line(custom_id="a", metadata={"k": "v"}))
    assert status == 202
    assert job["status"] == "queued"
    assert headers["Location"] == f"/v1/jobs/{job['id']}"
    assert int(headers["Retry-After"]) <= 60
    assert headers["x-request-id"].startswith("req_")

    ended = await sluice.ended(job["id"])

    assert ended["status"] == "completed"
    assert ended["custom_id"] == "a"
    assert ended["metadata"] == {"k": "v"}
    assert ended["result"]["choices"][0]["message"]["content"]
    assert ended["usage"]["total_tokens"] == ended["result"]["usage"]["total_tokens"] > 0
    assert float(ended["cost_usd"]) > 0
    assert ended["attempts"] == 1
    assert ended["provider"] == "simulated"
    [attempt] = await sluice.attempts(job["id"])
    assert attempt["status"] == "completed"
    assert attempt["cost_usd"] == ended["cost_usd"]
    assert [call["id"] for call in sluice.calls(job["id"])] == [f"{job['id']}-1"]


async def test_prefer_wait_answers_with_the_ended_job(sluice: Gateway) -> None:
    status, job, _ = await sluice.ask("POST", "/v1/jobs", line(), headers={"Prefer": "wait=20"})
    assert (status, job["status"]) == (200, "completed")


async def test_waiting_shorter_than_the_job_answers_202_with_the_job_as_it_is(sluice: Gateway) -> None:
    slow = line(simulate={"latency_ms": 8000})
    status, job, _ = await sluice.ask("POST", "/v1/jobs", slow, headers={"Prefer": "wait=1"})
    assert status == 202
    assert job["status"] in ("queued", "in_progress")


async def test_a_failed_call_is_retried_and_each_attempt_is_kept(sluice: Gateway) -> None:
    id_ = await sluice.submit(simulate={"key": "flaky", "fail": [{"status": 500}, "reset"]})
    ended = await sluice.ended(id_)
    assert ended["status"] == "completed"
    attempts = await sluice.attempts(id_)
    assert [attempt["status"] for attempt in attempts] == ["failed", "failed", "completed"]
    assert [(attempt["error"] or {}).get("code") for attempt in attempts] == ["server_error", "connection", None]
    assert [call["id"] for call in sluice.calls(id_)] == [f"{id_}-{number}" for number in (1, 2, 3)]


async def test_a_rate_limit_costs_no_try_and_is_waited_out(sluice: Gateway) -> None:
    many = [{"status": 429, "retry_after": 0.05}] * 3
    id_ = await sluice.submit(simulate={"key": "limited", "fail": many})
    ended = await sluice.ended(id_, seconds=60)
    assert ended["status"] == "completed"
    assert [attempt["charged"] for attempt in await sluice.attempts(id_)] == [False] * 3 + [True]


async def test_a_final_error_fails_at_once_in_the_callers_words(sluice: Gateway) -> None:
    id_ = await sluice.submit(simulate={"key": "bad", "fail": [{"status": 400}] * 9})
    ended = await sluice.ended(id_)
    assert ended["status"] == "failed"
    assert ended["error"]["code"] == "invalid_request"
    assert ended["error"]["retriable"] is False
    assert ended["result"] is None
    assert len(sluice.calls(id_)) == 1


async def test_tries_run_out(sluice: Gateway) -> None:
    id_ = await sluice.submit(simulate={"key": "down", "fail": [{"status": 500, "retry_after": 0}] * 50})
    ended = await sluice.ended(id_, seconds=60)
    assert ended["status"] == "failed"
    assert len(sluice.calls(id_)) == len(await sluice.attempts(id_)) == 5


async def test_a_failed_job_runs_again_when_asked(sluice: Gateway) -> None:
    id_ = await sluice.submit(simulate={"key": "once", "fail": [{"status": 400}]})
    assert (await sluice.ended(id_))["status"] == "failed"
    status, job, _ = await sluice.ask("POST", f"/v1/jobs/{id_}/retry")
    assert (status, job["error"]) == (202, None)
    assert (await sluice.ended(id_))["status"] == "completed"
    assert [attempt["number"] for attempt in await sluice.attempts(id_)] == [1, 2]
    status, refused, _ = await sluice.ask("POST", f"/v1/jobs/{id_}/retry")
    assert (status, refused["error"]["code"]) == (409, "not_failed")


async def test_a_later_run_at_is_waited_for(sluice: Gateway) -> None:
    at = time.time() + 3
    id_ = await sluice.submit(run_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)))
    assert (await sluice.ended(id_))["status"] == "completed"
    assert sluice.calls(id_)[0]["t"] >= int(at)


async def test_a_deadline_ends_a_call_and_a_queued_job(sluice: Gateway) -> None:
    await sluice.ended(await sluice.submit())  # the worker is up
    called = await sluice.submit(deadline=1, model="simulated/unhurried", simulate={"latency_ms": 20_000})
    refused = await sluice.submit(
        deadline=2, model="simulated/rests", simulate={"key": "d", "fail": [{"status": 429, "retry_after": 30}]}
    )
    waiting = await sluice.submit(deadline=1, model="idle/any")  # no worker runs this provider's jobs
    for id_ in (called, refused, waiting):
        assert (await sluice.ended(id_))["status"] == "expired"
    assert [attempt["status"] for attempt in await sluice.attempts(called)] == ["expired"]
    assert await sluice.attempts(waiting) == []


@pytest.mark.parametrize("state", ["queued", "in_progress", "completed"])
async def test_cancel_in_every_state(sluice: Gateway, state: str) -> None:
    far = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))
    match state:
        case "queued":
            id_ = await sluice.submit(run_at=far)
        case "in_progress":
            id_ = await sluice.submit(simulate={"latency_ms": 30_000})
            await until(lambda: asyncio.to_thread(sluice.calls, id_))
        case _:
            id_ = await sluice.submit()
            await sluice.ended(id_)
    status, job, _ = await sluice.ask("POST", f"/v1/jobs/{id_}/cancel")
    assert status == 200
    expected = "completed" if state == "completed" else "cancelled"
    assert job["status"] == expected
    again, twice, _ = await sluice.ask("POST", f"/v1/jobs/{id_}/cancel")
    assert (again, twice["status"]) == (200, expected)
    if state == "in_progress":
        disconnected = b'"disconnected"'
        await until(lambda: asyncio.to_thread(lambda: disconnected in sluice.upstream_log.read_bytes()))
        [attempt] = await sluice.attempts(id_)
        assert (attempt["status"], attempt["usage_estimated"]) == ("cancelled", True)


async def test_unknown_fields_reach_the_provider_untouched(sluice: Gateway) -> None:
    id_ = await sluice.submit(simulate={"output_tokens": 7})
    assert (await sluice.ended(id_))["usage"]["completion_tokens"] == 7


async def test_the_list_is_newest_first_filtered_and_without_results(sluice: Gateway) -> None:
    made = [await sluice.submit(metadata={"n": str(number % 2), "of": "list"}) for number in range(5)]
    for id_ in made:
        await sluice.ended(id_)
    _, listed, _ = await sluice.ask("GET", "/v1/jobs?limit=2&metadata.of=list")
    assert [job["id"] for job in listed["data"]] == made[:2:-1]
    assert listed["has_more"] is True
    _, rest, _ = await sluice.ask("GET", f"/v1/jobs?limit=100&metadata.of=list&after={listed['last_id']}")
    assert [job["id"] for job in rest["data"]] == made[2::-1]
    assert rest["has_more"] is False
    assert all(job["result"] is None for job in rest["data"])
    _, odd, _ = await sluice.ask("GET", "/v1/jobs?metadata.of=list&metadata.n=1&status=completed")
    assert [job["id"] for job in odd["data"]] == [made[3], made[1]]
    other, _, _ = await sluice.ask("GET", f"/v1/jobs/{made[0]}", headers={"X-Sluice-Tenant": "other"})
    assert other == 404
