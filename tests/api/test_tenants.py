"""One tenant cannot see, cancel, retry or replay what is another's; whichever of the two was there first."""

from typing import Any

import asyncpg

from tests.api.conftest import Tenant
from tests.gateway import line


async def fill(tenant: Tenant) -> tuple[Any, Any]:
    """Submit a job and a batch, one of whose two jobs has failed; return the job and the batch."""
    _, job, _ = await tenant.ask("POST", "/v1/jobs", line(metadata={"k": "v"}))
    _, batch, _ = await tenant.ask("POST", "/v1/batches", {"requests": [line(), line()]})
    connection = await asyncpg.connect(tenant.api.env["SLUICE_DATABASE_URL"], timeout=10, command_timeout=20)
    try:
        await connection.execute(
            """UPDATE jobs SET status = 'failed', finished_at = now(), batch_sequence = 1, error = '{"code": "x"}'
            WHERE id = (SELECT id FROM jobs WHERE batch_id = $1::uuid ORDER BY id LIMIT 1)""",
            batch["id"].removeprefix("batch_"),
        )
        await connection.execute(
            "UPDATE batches SET failed = 1, sequence = 1 WHERE id = $1::uuid", batch["id"].removeprefix("batch_")
        )
    finally:
        await connection.close(timeout=10)
    _, batch, _ = await tenant.ask("GET", f"/v1/batches/{batch['id']}")
    return job, batch


async def ids(tenant: Tenant, path: str) -> list[str]:
    status, listed, _ = await tenant.ask("GET", path)
    assert status == 200, listed
    assert len(listed["data"]) or (listed["first_id"], listed["last_id"], listed["has_more"]) == (None, None, False)
    return [one["id"] for one in listed["data"]]


async def test_nothing_of_one_tenant_is_there_for_another(tenant: Tenant, neighbour: Tenant) -> None:
    mine, theirs = await fill(tenant), await fill(neighbour)
    for owner, (job, batch), other in ((tenant, mine, neighbour), (neighbour, theirs, tenant)):
        [failed] = await ids(owner, f"/v1/jobs?batch_id={batch['id']}&status=failed")
        for method, path in (
            ("GET", f"/v1/jobs/{job['id']}"),
            ("GET", f"/v1/jobs/{job['id']}?wait=1"),
            ("GET", f"/v1/jobs/{job['id']}/attempts"),
            ("POST", f"/v1/jobs/{job['id']}/cancel"),
            ("POST", f"/v1/jobs/{job['id']}/retry"),
            ("POST", f"/v1/jobs/{failed}/retry"),
            ("GET", f"/v1/batches/{batch['id']}"),
            ("GET", f"/v1/batches/{batch['id']}/results"),
            ("POST", f"/v1/batches/{batch['id']}/cancel"),
        ):
            status, shape, _ = await other.ask(method, path)
            assert (status, shape["error"]["type"]) == (404, "invalid_request_error"), (method, path)
        assert await ids(other, f"/v1/jobs?batch_id={batch['id']}") == []
        _, retried, _ = await other.ask("POST", "/v1/jobs/retry", {"batch_id": batch["id"]})
        assert retried["retried"] == 0
        # And nothing of it has changed for its owner.
        _, still, _ = await owner.ask("GET", f"/v1/jobs/{job['id']}")
        assert still | {"queue": None} == job
        assert (await owner.ask("GET", f"/v1/batches/{batch['id']}"))[1] == batch
        assert len(await ids(owner, "/v1/jobs")) == 3
        assert await ids(owner, "/v1/batches") == [batch["id"]]
        assert await ids(owner, "/v1/jobs?metadata.k=v") == [job["id"]]
    _, retried, _ = await tenant.ask("POST", "/v1/jobs/retry", {"batch_id": mine[1]["id"]})
    assert retried["retried"] == 1


async def test_a_404_does_not_tell_whether_it_exists(tenant: Tenant, neighbour: Tenant) -> None:
    _, job, _ = await tenant.ask("POST", "/v1/jobs", line())
    absent = job["id"][:-4] + "0000"
    answers = []
    for id_ in (job["id"], absent):
        status, shape, _ = await neighbour.ask("GET", f"/v1/jobs/{id_}")
        answers.append((status, str(shape).replace(id_, "ID")))
    assert answers[0] == answers[1]


async def test_the_lists_of_a_newcomer_are_empty(tenant: Tenant, neighbour: Tenant) -> None:
    job, batch = await fill(tenant)
    for path in ("/v1/jobs", f"/v1/jobs?after={job['id']}", "/v1/jobs?status=failed", "/v1/jobs?metadata.k=v"):
        assert await ids(neighbour, path) == []
    for path in ("/v1/batches", f"/v1/batches?after={batch['id'][:-1]}f"):
        assert await ids(neighbour, path) == []


async def test_the_admin_acts_in_the_tenant_default(tenant: Tenant) -> None:
    _, job, _ = await tenant.api.ask("POST", "/v1/jobs", line())
    assert (await tenant.ask("GET", f"/v1/jobs/{job['id']}"))[0] == 404
    status, same, _ = await tenant.api.ask("GET", f"/v1/jobs/{job['id']}", headers={"X-Sluice-Tenant": "default"})
    assert (status, same | {"queue": None}) == (200, job)


async def test_each_tenant_signs_with_a_secret_of_its_own(tenant: Tenant, neighbour: Tenant) -> None:
    first, other, again = [
        (await who.ask("GET", "/v1/webhook_signing_secret"))[1] for who in (tenant, neighbour, tenant)
    ]
    assert first == again != other
    assert first["signing_secret"].startswith("whsec_")
