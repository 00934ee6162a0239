"""Lists: every job once, newest first, whatever arrives meanwhile; filters that mean what they say."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from tests.api.conftest import Tenant
from tests.gateway import line


async def submit(tenant: Tenant, **options: Any) -> Any:
    status, job, _ = await tenant.ask("POST", "/v1/jobs", line(**options))
    assert status == 202, job
    return job


async def listed(tenant: Tenant, query: str = "") -> list[str]:
    status, page, _ = await tenant.ask("GET", f"/v1/jobs?limit=100{query}")
    assert status == 200, page
    assert not page["has_more"]
    return [job["id"] for job in page["data"]]


async def test_pages_have_neither_gap_nor_repeat_while_jobs_arrive(tenant: Tenant) -> None:
    made = [job["id"] for job in await asyncio.gather(*(submit(tenant) for _ in range(30)))]
    seen: list[str] = []
    after = ""
    while True:
        _, page, _ = await tenant.ask("GET", f"/v1/jobs?limit=10{after}")
        shown = [job["id"] for job in page["data"]]
        assert page["object"] == "list"
        assert (page["first_id"], page["last_id"]) == (shown[0], shown[-1])
        seen += shown
        await asyncio.gather(*(submit(tenant) for _ in range(3)))
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert seen == sorted(made, reverse=True)


async def test_the_last_page_knows_that_it_is_the_last(tenant: Tenant) -> None:
    assert await listed(tenant) == []
    made = [(await submit(tenant))["id"] for _ in range(3)]
    for limit, shown, more in ((2, made[:0:-1], True), (3, made[::-1], False), (100, made[::-1], False)):
        _, page, _ = await tenant.ask("GET", f"/v1/jobs?limit={limit}")
        assert ([job["id"] for job in page["data"]], page["has_more"]) == (shown, more)
    _, page, _ = await tenant.ask("GET", f"/v1/jobs?after={made[0]}")
    assert page == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


async def test_a_page_has_twenty_where_no_limit_is_asked(tenant: Tenant) -> None:
    await asyncio.gather(*(submit(tenant) for _ in range(21)))
    _, page, _ = await tenant.ask("GET", "/v1/jobs")
    assert (len(page["data"]), page["has_more"]) == (20, True)


async def test_prompts_are_not_in_a_list(tenant: Tenant) -> None:
    await submit(tenant, text="the prompt itself")
    _, page, _ = await tenant.ask("GET", "/v1/jobs")
    assert "the prompt itself" not in str(page)
    assert page["data"][0]["result"] is None


async def test_filters(tenant: Tenant) -> None:
    plain = (await submit(tenant))["id"]
    fast = (await submit(tenant, model="fast"))["id"]
    tagged = (await submit(tenant, metadata={"k": "v", "a.b": "1"}))["id"]
    other = (await submit(tenant, metadata={"k": "w", "q'--": '"x"'}))["id"]
    ended = (await submit(tenant, metadata={"k": "v"}))["id"]
    await tenant.ask("POST", f"/v1/jobs/{ended}/cancel")
    _, batch, _ = await tenant.ask("POST", "/v1/batches", {"requests": [line(), line()]})
    for query, expected in (
        ("model=fast", {fast}),
        ("model=simulated%2Fsmall&metadata.k=w", {other}),
        ("metadata.k=v", {tagged, ended}),
        ("metadata.k=v&status=queued", {tagged}),
        ("metadata.k=v&metadata.a.b=1", {tagged}),
        (f"metadata.{quote(chr(113) + chr(39) + '--')}={quote(chr(34) + 'x' + chr(34))}", {other}),
        ("metadata.k=", set()),
        ("metadata.absent=v", set()),
        ("status=cancelled", {ended}),
        ("status=completed", set()),
        ("model=absent", set()),
        ("batch_id=batch_" + "0" * 32, set()),
    ):
        assert set(await listed(tenant, f"&{query}")) == expected, query
    in_batch = set(await listed(tenant, f"&batch_id={batch['id']}"))
    assert len(in_batch) == 2
    assert set(await listed(tenant)) == {plain, fast, tagged, other, ended} | in_batch


async def test_created_after_and_before_share_a_list_out(tenant: Tenant) -> None:
    made = sorted(await asyncio.gather(*(submit(tenant) for _ in range(60))), key=lambda job: job["id"])
    everything = [job["id"] for job in reversed(made)]
    for bound in [made[0], made[-1], *made[::7]]:
        moment = quote(bound["created_at"])
        late, early = (
            await listed(tenant, f"&created_after={moment}"),
            await listed(tenant, f"&created_before={moment}"),
        )
        assert late + early == everything
        assert {job["id"] for job in made if job["created_at"] >= bound["created_at"]} <= set(late)
    zone = datetime.fromisoformat(made[0]["created_at"]) - timedelta(hours=1)
    assert await listed(tenant, f"&created_after={quote(zone.isoformat())}") == everything
    assert await listed(tenant, f"&created_before={quote(zone.isoformat())}") == []
    assert await listed(tenant, f"&created_before={quote('9999-12-31T23:59:59-14:00')}") == everything


@pytest.mark.parametrize("limit", ["0", "-1", "101", "1.5", "x", "", "1e1", "٣", "9" * 5_000])
async def test_a_limit_is_1_to_100(tenant: Tenant, limit: str) -> None:
    for path in ("/v1/jobs", "/v1/batches"):
        status, shape, _ = await tenant.ask("GET", f"{path}?limit={quote(limit)}")
        assert (status, shape["error"]["param"]) == (400, "limit")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("after=x", "after"),
        ("after=", "after"),
        ("after=batch_" + "0" * 32, "after"),
        ("after=job_" + "0" * 31, "after"),
        ("after=job_" + "G" * 32, "after"),
        ("status=done", "status"),
        ("status=", "status"),
        ("batch_id=x", "batch_id"),
        ("created_after=x", "created_after"),
        ("created_after=1969-12-31T23:59:59Z", "created_after"),
        ("created_before=9999", "created_before"),
        ("model=%00", "model"),
        ("metadata.k=%00", "metadata.k"),
        ("metadata.%00=v", "metadata.\0"),
        ("metadata.=v", "metadata."),
        (f"metadata.{'k' * 65}=v", f"metadata.{'k' * 65}"),
        ("nope=1", "nope"),
    ],
)
async def test_what_is_no_filter(tenant: Tenant, query: str, param: str) -> None:
    status, shape, _ = await tenant.ask("GET", f"/v1/jobs?{query}")
    assert (status, shape["error"]["param"]) == (400, param), shape
