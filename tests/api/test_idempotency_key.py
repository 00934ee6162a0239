"""What an `Idempotency-Key` promises: one job for one key, however often and however fast it is sent."""

import asyncio
from typing import Any

from tests.api.conftest import Tenant, rows
from tests.gateway import line


async def submit(tenant: Tenant, key: str, body: Any = None, path: str = "/v1/jobs") -> tuple[int, Any, bool]:
    status, shape, headers = await tenant.ask("POST", path, body or line(), Idempotency_Key=key)
    replayed = headers.get("Idempotent-Replayed")
    assert replayed in (None, "true")
    return status, shape, replayed is not None


async def test_the_same_key_and_body_give_the_same_job(tenant: Tenant) -> None:
    status, job, replayed = await submit(tenant, "one")
    assert (status, replayed) == (202, False)
    assert await submit(tenant, "one") == (202, job, True)
    status, other, _ = await submit(tenant, "two")
    assert (status, other["id"] != job["id"]) == (202, True)


async def test_a_replay_shows_the_job_as_it_is_by_now(tenant: Tenant) -> None:
    _, job, _ = await submit(tenant, "key")
    await tenant.ask("POST", f"/v1/jobs/{job['id']}/cancel")
    status, ended, replayed = await submit(tenant, "key")
    assert (status, ended["id"], ended["status"], replayed) == (200, job["id"], "cancelled", True)


async def test_a_key_does_not_stand_for_another_request(tenant: Tenant) -> None:
    await submit(tenant, "key")
    before = await rows(tenant.api)
    for body, path in (
        (line(text="other"), "/v1/jobs"),
        (line(metadata={}), "/v1/jobs"),
        ({"requests": [line()]}, "/v1/batches"),
    ):
        status, shape, replayed = await submit(tenant, "key", body, path)
        assert (status, shape["error"]["code"], replayed) == (422, "idempotency_key_reused", False)
    assert await rows(tenant.api) == before


async def test_a_refused_request_leaves_its_key_free(tenant: Tenant) -> None:
    status, _, _ = await submit(tenant, "key", line(priority="urgent"))
    assert status == 400
    status, _, replayed = await submit(tenant, "key")
    assert (status, replayed) == (202, False)


async def test_another_tenants_key_is_another(tenant: Tenant, neighbour: Tenant) -> None:
    _, mine, _ = await submit(tenant, "shared")
    status, theirs, replayed = await submit(neighbour, "shared", line(text="of mine"))
    assert (status, replayed) == (202, False)
    assert theirs["id"] != mine["id"]
    assert (await submit(tenant, "shared"))[1:] == (mine, True)


async def test_twins_at_the_same_time_make_one_job(tenant: Tenant, neighbour: Tenant) -> None:
    before = await rows(tenant.api)
    answers = await asyncio.gather(
        *(submit(who, f"twin {number % 2}") for number in range(50) for who in (tenant, neighbour))
    )
    assert {status for status, _, _ in answers} == {202}
    assert len({job["id"] for _, job, _ in answers}) == 4
    assert sum(replayed for _, _, replayed in answers) == 96
    after = await rows(tenant.api)
    assert {name: after[name] - before[name] for name in ("jobs", "payloads", "idempotency_keys")} == {
        "jobs": 4, "payloads": 4, "idempotency_keys": 4,
    }  # fmt: skip


async def test_rivals_for_a_key_leave_one_job(tenant: Tenant) -> None:
    before = await rows(tenant.api)
    answers = await asyncio.gather(*(submit(tenant, "key", line(text=str(number % 2))) for number in range(50)))
    won = [job["id"] for status, job, _ in answers if status == 202]
    lost = [shape["error"]["code"] for status, shape, _ in answers if status == 422]
    assert (len(won), len(lost), len(set(won)), set(lost)) == (25, 25, 1, {"idempotency_key_reused"})
    assert (await rows(tenant.api))["jobs"] == before["jobs"] + 1


async def test_a_batch_is_replayed_by_its_key_too(tenant: Tenant) -> None:
    asked = {"requests": [line(custom_id=str(number)) for number in range(3)]}
    before = await rows(tenant.api)
    answers = await asyncio.gather(*(submit(tenant, "batch", asked, "/v1/batches") for _ in range(10)))
    assert [status for status, _, _ in answers] == [202] * 10
    assert len({batch["id"] for _, batch, _ in answers}) == 1
    assert sum(replayed for _, _, replayed in answers) == 9
    after = await rows(tenant.api)
    assert (after["batches"], after["jobs"]) == (before["batches"] + 1, before["jobs"] + 3)
    assert (await submit(tenant, "batch", {"requests": [line()]}, "/v1/batches"))[0] == 422


async def test_the_longest_key_is_255_characters(tenant: Tenant) -> None:
    assert (await submit(tenant, "k" * 255))[0] == 202
    before = await rows(tenant.api)
    for wrong in ("", "k" * 256, "tab\tbed"):
        status, shape, _ = await submit(tenant, wrong)
        assert (status, shape["error"]["param"]) == (400, "Idempotency-Key"), wrong
    assert await rows(tenant.api) == before
