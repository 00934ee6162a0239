"""Batches over HTTP: stored whole, listed, cancelled while queued, their results page by page."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from tests.api.conftest import Tenant
from tests.gateway import line, until

COUNTS = {"completed": 0, "failed": 0, "cancelled": 0, "expired": 0}


async def submit(tenant: Tenant, count: int, **options: Any) -> Any:
    asked = {"requests": [line(custom_id=str(number)) for number in range(count)], **options}
    status, batch, headers = await tenant.ask("POST", "/v1/batches", asked)
    assert status == 202, batch
    assert headers["Location"] == f"/v1/batches/{batch['id']}"
    return batch


async def results(tenant: Tenant, batch: str, query: str) -> list[Any]:
    """Return the output lines of a page."""
    url = f"{tenant.api.url}/v1/batches/{batch}/results?{query}"
    async with tenant.api.client.get(url, headers={"X-Sluice-Tenant": tenant.name}) as answer:
        assert answer.status == 200
        assert answer.content_type == "application/x-ndjson"
        return [orjson.loads(one) for one in (await answer.read()).splitlines()]


async def test_a_batch_of_thousands_is_accepted_at_once(tenant: Tenant) -> None:
    batch = await submit(tenant, 2_000, metadata={"k": "v"}, completion_window="24h")
    assert (batch["object"], batch["status"], batch["endpoint"]) == ("batch", "in_progress", "/v1/chat/completions")
    assert batch["request_counts"] == COUNTS | {"total": 2_000}
    assert (batch["metadata"], batch["completion_window"], batch["errors"]) == ({"k": "v"}, "24h", None)
    assert (batch["completed_at"], batch["cancelled_at"], batch["usage"]["total_tokens"]) == (None, None, 0)
    assert isinstance(batch["created_at"], int)
    assert (await tenant.ask("GET", f"/v1/batches/{batch['id']}"))[:2] == (200, batch)
    seen: list[str] = []
    after = ""
    while True:
        _, page, _ = await tenant.ask("GET", f"/v1/jobs?batch_id={batch['id']}&limit=100{after}")
        assert {(job["batch_id"], job["status"]) for job in page["data"]} == {(batch["id"], "queued")}
        seen += [job["custom_id"] for job in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert seen == [str(number) for number in reversed(range(2_000))]


async def test_a_system_prompt_for_all_counts_in_each(tenant: Tenant) -> None:
    """Two MB may be sent, and twice that be made of it."""
    asked = {"requests": [line() for _ in range(50)], "defaults": {"system": "s" * 100_000}}
    status, answer, _ = await tenant.ask("POST", "/v1/batches", asked)
    assert (status, answer["error"]["code"]) == (400, "batch_too_large")
    asked["requests"] = asked["requests"][:30]
    assert (await tenant.ask("POST", "/v1/batches", asked))[0] == 202


async def test_what_was_accepted_is_replayed_though_it_is_late_now(tenant: Tenant) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=3)).isoformat()
    asked = {"requests": [line()], "defaults": {"deadline": soon}}
    headers = {"Idempotency_Key": "late"}
    first = await tenant.ask("POST", "/v1/batches", asked, **headers)
    job = await tenant.ask("POST", "/v1/jobs", line(deadline=soon), Idempotency_Key="late job")

    async def refused() -> bool:
        return (await tenant.ask("POST", "/v1/jobs", line(deadline=soon)))[0] == 400

    await until(refused)
    again = await tenant.ask("POST", "/v1/batches", asked, **headers)
    assert (again[0], again[1]["id"], again[2]["Idempotent-Replayed"]) == (202, first[1]["id"], "true")
    again = await tenant.ask("POST", "/v1/jobs", line(deadline=soon), Idempotency_Key="late job")
    assert (again[1]["id"], again[2]["Idempotent-Replayed"]) == (job[1]["id"], "true")


async def test_the_endpoint_is_that_of_lines_which_name_none(tenant: Tenant) -> None:
    lines = [{"body": {"model": "fast", "input": "x"}}, line(url="/v1/chat/completions")]
    asked = {"requests": lines, "endpoint": "/v1/embeddings"}
    _, batch, _ = await tenant.ask("POST", "/v1/batches", asked)
    assert batch["endpoint"] == "/v1/embeddings"
    _, page, _ = await tenant.ask("GET", f"/v1/jobs?batch_id={batch['id']}")
    assert [job["url"] for job in page["data"]] == ["/v1/chat/completions", "/v1/embeddings"]


async def test_lists_are_newest_first_and_say_whether_there_is_more(tenant: Tenant) -> None:
    made = [(await submit(tenant, 1))["id"] for _ in range(5)][::-1]
    _, page, _ = await tenant.ask("GET", "/v1/batches?limit=3")
    assert ([batch["id"] for batch in page["data"]], page["has_more"]) == (made[:3], True)
    assert (page["object"], page["first_id"], page["last_id"]) == ("list", made[0], made[2])
    _, page, _ = await tenant.ask("GET", f"/v1/batches?limit=2&after={page['last_id']}")
    assert ([batch["id"] for batch in page["data"]], page["has_more"]) == (made[3:], False)
    status, shape, _ = await tenant.ask("GET", "/v1/batches?after=job_" + "0" * 32)
    assert (status, shape["error"]["param"]) == (400, "after")


async def test_cancelling_ends_what_is_queued(tenant: Tenant) -> None:
    batch, bystander = await submit(tenant, 1_200), await submit(tenant, 1)
    status, cancelled, _ = await tenant.ask("POST", f"/v1/batches/{batch['id']}/cancel")
    assert (status, cancelled.get("status")) == (200, "cancelled"), cancelled
    assert cancelled["request_counts"] == COUNTS | {"total": 1_200, "cancelled": 1_200}
    assert cancelled["cancelled_at"] >= cancelled["cancelling_at"] >= batch["created_at"]
    assert cancelled["completed_at"] is None
    assert (await tenant.ask("POST", f"/v1/batches/{batch['id']}/cancel"))[:2] == (200, cancelled)
    _, page, _ = await tenant.ask("GET", f"/v1/jobs?batch_id={batch['id']}&status=queued")
    assert page["data"] == []
    assert (await tenant.ask("GET", f"/v1/batches/{bystander['id']}"))[1] == bystander


async def test_a_batch_whose_jobs_were_cancelled_one_by_one_has_ended(tenant: Tenant) -> None:
    batch = await submit(tenant, 2)
    _, page, _ = await tenant.ask("GET", f"/v1/jobs?batch_id={batch['id']}")
    for job, status, count in zip(page["data"], ("in_progress", "completed"), (1, 2), strict=True):
        await tenant.ask("POST", f"/v1/jobs/{job['id']}/cancel")
        _, now, _ = await tenant.ask("GET", f"/v1/batches/{batch['id']}")
        assert (now["status"], now["request_counts"]["cancelled"]) == (status, count)


async def test_results_come_page_by_page_each_once(tenant: Tenant) -> None:
    batch = (await submit(tenant, 250))["id"]
    assert await results(tenant, batch, "limit=100") == []
    await tenant.ask("POST", f"/v1/batches/{batch}/cancel")
    seen: list[Any] = []
    cursor = "0"
    while page := await results(tenant, batch, f"limit=100&after={cursor}"):
        assert len(page) <= 100
        seen += page
        cursor = page[-1]["cursor"]
    assert sorted(int(one["custom_id"]) for one in seen) == list(range(250))
    assert [int(one["cursor"]) for one in seen] == sorted({int(one["cursor"]) for one in seen})
    assert len(await results(tenant, batch, "limit=1000")) == 250
    assert len(await results(tenant, batch, "")) == 100
    first = seen[0]
    assert first.keys() == {"id", "custom_id", "response", "error", "cost_usd", "cursor"}
    assert (first["response"], first["error"]["code"], first["cost_usd"]) == (None, "cancelled", "0.00")


async def test_what_is_no_cursor(tenant: Tenant) -> None:
    batch = (await submit(tenant, 1))["id"]
    for query in ("after=x", "after=-1", "after=" + "9" * 19, "after=", "limit=0", "limit=1001"):
        status, shape, _ = await tenant.ask("GET", f"/v1/batches/{batch}/results?{query}")
        assert (status, shape["error"]["param"]) == (400, query.split("=")[0])
