"""What a submit answers: the whole job, where to look for it, and what its options became."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.api.conftest import Tenant, fetch_row
from tests.gateway import line

FIELDS = {
    "id", "object", "custom_id", "url", "model", "status", "priority", "created_at", "run_at", "deadline", "started_at",
    "finished_at", "queue", "attempts", "result", "error", "provider", "deployment", "usage", "cost_usd",
    "max_cost_usd", "downgraded", "held_by", "cache", "batch_id", "metadata",
}  # fmt: skip


async def test_the_answer_is_202_with_the_whole_job(tenant: Tenant) -> None:
    sent = datetime.now(UTC)
    asked = line(model="fast", custom_id="doc-17", priority="bulk", metadata={"a": "b"}, method="POST")
    status, job, headers = await tenant.ask("POST", "/v1/jobs", asked)
    assert status == 202
    assert job.keys() == FIELDS
    assert (job["object"], job["custom_id"], job["status"], job["priority"]) == ("job", "doc-17", "queued", "bulk")
    assert (job["model"], job["provider"], job["url"]) == ("fast", "simulated", "/v1/chat/completions")
    assert (job["attempts"], job["metadata"]) == (0, {"a": "b"})
    for nothing_yet in ("deadline", "started_at", "finished_at", "result", "error", "usage", "cost_usd", "batch_id"):
        assert job[nothing_yet] is None, nothing_yet
    assert job["created_at"] == job["run_at"]
    assert job["created_at"].endswith("Z")
    assert sent <= datetime.fromisoformat(job["created_at"]) <= datetime.now(UTC)
    assert headers["Location"] == f"/v1/jobs/{job['id']}"
    assert 0 < int(headers["Retry-After"]) <= 60
    assert headers["x-request-id"]
    _, again, _ = await tenant.ask("GET", f"/v1/jobs/{job['id']}")
    assert again.pop("queue")["position"] >= 1
    assert job.pop("queue") is None
    assert again == job


async def test_what_is_left_out_has_a_default(tenant: Tenant) -> None:
    _, job, _ = await tenant.ask("POST", "/v1/jobs", line())
    assert (job["priority"], job["custom_id"], job["metadata"]) == ("standard", None, {})
    assert (job["url"], job["model"]) == ("/v1/chat/completions", "simulated/small")


async def test_the_body_is_stored_as_it_came(tenant: Tenant) -> None:
    asked = line(text="Grüße \U0001f30a \u2028 \x01", simulate={"deep": [1.5, None, {"k": [2**63]}]})
    _, job, _ = await tenant.ask("POST", "/v1/jobs", asked)
    found = await fetch_row(
        tenant.api, "SELECT convert_from(body, 'UTF8')::json::text FROM payloads WHERE job_id = $1::uuid", job["id"][4:]
    )
    assert json.loads(found[0]) == asked["body"]


async def test_an_embedding_is_a_job_too(tenant: Tenant) -> None:
    asked = {"url": "/v1/embeddings", "body": {"model": "fast", "input": ["a", "b"]}}
    status, job, _ = await tenant.ask("POST", "/v1/jobs", asked)
    assert (status, job["url"]) == (202, "/v1/embeddings")


@pytest.mark.parametrize("priority", ["interactive", "standard", "bulk"])
async def test_priorities(tenant: Tenant, priority: str) -> None:
    _, job, _ = await tenant.ask("POST", "/v1/jobs", line(priority=priority))
    assert job["priority"] == priority


@pytest.mark.parametrize("seconds", [90, 90.5])
async def test_a_deadline_may_be_in_seconds(tenant: Tenant, seconds: float) -> None:
    _, job, _ = await tenant.ask("POST", "/v1/jobs", line(deadline=seconds))
    left = datetime.fromisoformat(job["deadline"]) - datetime.fromisoformat(job["created_at"])
    assert abs(left - timedelta(seconds=seconds)) < timedelta(seconds=2)


async def test_times_are_shown_in_utc_to_the_microsecond(tenant: Tenant) -> None:
    run_at, deadline = "2999-01-01T01:00:00.123456+02:00", "2999-01-01T00:00:00Z"
    _, job, _ = await tenant.ask("POST", "/v1/jobs", line(run_at=run_at, deadline=deadline))
    assert (job["run_at"], job["deadline"]) == ("2998-12-31T23:00:00.123456Z", deadline)
    assert job["status"] == "queued"


@pytest.mark.parametrize("past", ["2026-01-01T00:00:00+02:00", "0001-01-01T00:00:00Z"])
async def test_a_run_at_in_the_past_is_now(tenant: Tenant, past: str) -> None:
    status, job, _ = await tenant.ask("POST", "/v1/jobs", line(run_at=past))
    assert status == 202
    assert job["run_at"] == job["created_at"]


async def test_the_limits_of_metadata_are_openais(tenant: Tenant) -> None:
    most = {f"{number:064}": "v" * 512 for number in range(16)}
    status, job, _ = await tenant.ask("POST", "/v1/jobs", line(metadata=most))
    assert (status, job["metadata"]) == (202, most)


@pytest.mark.parametrize("include_result", [True, False])
async def test_a_webhooks_options_are_stored(tenant: Tenant, include_result: bool) -> None:
    wanted = {"url": "https://example.com/hook?x=1", "include_result": include_result}
    _, job, _ = await tenant.ask("POST", "/v1/jobs", line(webhook=wanted))
    found = await fetch_row(
        tenant.api, "SELECT webhook->>'url', webhook->>'include_result' FROM jobs WHERE id = $1::uuid", job["id"][4:]
    )
    assert tuple(found) == (wanted["url"], str(include_result).lower())


HELD = ["wait=1", "WAIT=1", 'wait="1"', "respond-async, wait = 1", "wait=1; x=y"]


async def test_prefer_wait_holds_the_answer(tenant: Tenant) -> None:
    async def seconds(prefer: str) -> float:
        started = time.monotonic()
        status, job, _ = await tenant.ask("POST", "/v1/jobs", line(), Prefer=prefer)
        assert (status, job["status"]) == (202, "queued")
        return time.monotonic() - started

    took = await asyncio.gather(*(seconds(prefer) for prefer in HELD))
    assert min(took) >= 1, dict(zip(HELD, took, strict=True))
    for prefer in ("respond-async", "wait=0", "wait=-5", "return=minimal"):
        assert await seconds(prefer) < 1, prefer


@pytest.mark.parametrize("prefer", ["wait", "wait=soon", "wait=1.5", "wait=" + "9" * 5_000])
async def test_what_is_no_wait(tenant: Tenant, prefer: str) -> None:
    status, shape, _ = await tenant.ask("POST", "/v1/jobs", line(), Prefer=prefer)
    assert (status, shape["error"]["param"]) == (400, "wait")
    assert (await tenant.ask("GET", "/v1/jobs"))[1]["data"] == []


async def test_a_long_poll_that_ends_in_vain_shows_the_job_as_it_is(tenant: Tenant) -> None:
    _, job, _ = await tenant.ask("POST", "/v1/jobs", line())
    started = time.monotonic()
    status, same, headers = await tenant.ask("GET", f"/v1/jobs/{job['id']}?wait=1")
    assert time.monotonic() - started >= 1
    assert (status, same, headers["Location"]) == (202, job, f"/v1/jobs/{job['id']}")


async def test_who_waits_is_woken_by_a_cancellation(tenant: Tenant) -> None:
    _, job, _ = await tenant.ask("POST", "/v1/jobs", line())
    waiting = asyncio.create_task(tenant.ask("GET", f"/v1/jobs/{job['id']}?wait=60"))
    for _ in range(5):  # by now it waits; if it did not, it would still answer with the ended job
        await tenant.ask("GET", f"/v1/jobs/{job['id']}")
    started = time.monotonic()
    await tenant.ask("POST", f"/v1/jobs/{job['id']}/cancel")
    status, ended, _ = await waiting
    assert (status, ended["status"]) == (200, "cancelled")
    assert time.monotonic() - started < 5


async def test_cancelling_a_queued_job_ends_it_once(tenant: Tenant) -> None:
    _, job, _ = await tenant.ask("POST", "/v1/jobs", line())
    status, ended, _ = await tenant.ask("POST", f"/v1/jobs/{job['id']}/cancel")
    assert (status, ended["status"], ended["attempts"]) == (200, "cancelled", 0)
    assert ended["finished_at"] >= ended["created_at"]
    assert (await tenant.ask("POST", f"/v1/jobs/{job['id']}/cancel"))[:2] == (200, ended)
    status, shape, _ = await tenant.ask("POST", f"/v1/jobs/{job['id']}/retry")
    assert (status, shape["error"]["code"]) == (409, "not_failed")
