"""Who is shown which alerts, over HTTP and by the command line."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import text

from shared.db import alerts
from shared.db import engine as db
from shared.db.alerts import NewAlert
from tests.api.conftest import Tenant, new_key
from tests.commands import sluice_command
from tests.gateway import Gateway


async def raise_(api: Gateway, *new: NewAlert) -> None:
    engine = db.create(api.env["SLUICE_DATABASE_URL"], pool_size=1, name="test")
    async with db.transaction(engine) as connection:
        await alerts.add(connection, new)
    await engine.dispose()


def of(tenant: Tenant | None, number: int) -> NewAlert:
    whose = tenant.id if tenant else "operator"
    return NewAlert("budget.exhausted", f"{whose} {number}", f"number {number}", {"n": number}, tenant and tenant.id)


async def listed(ask: Any, query: str = "") -> list[dict[str, Any]]:
    status, page, _ = await ask("GET", f"/v1/admin/alerts{query}")
    assert status == 200, page
    return list(page["data"])


async def test_a_tenants_administrators_see_their_own_and_no_channels(
    api: Gateway, tenant: Tenant, neighbour: Tenant
) -> None:
    await raise_(api, *(of(tenant, number) for number in range(3)), of(neighbour, 0), of(None, 0))
    key = await new_key(tenant, role="admin")
    found = await listed(key.ask)
    assert [one["subject"] for one in found] == [f"{tenant.id} {number}" for number in (2, 1, 0)]
    assert found[0].keys() == {"id", "object", "at", "kind", "subject", "tenant_id", "message", "fields"}
    assert (found[0]["object"], found[0]["tenant_id"], found[0]["fields"]) == ("alert", tenant.id, {"n": 2})
    assert (await key.ask("GET", f"/v1/admin/alerts?tenant_id={neighbour.id}"))[0] == 404
    assert (await (await new_key(tenant, scopes=["read"])).ask("GET", "/v1/admin/alerts"))[0] == 403


async def test_the_operator_sees_all_or_one_tenants(api: Gateway, tenant: Tenant, neighbour: Tenant) -> None:
    await raise_(api, of(tenant, 0), of(neighbour, 0), of(None, 1))
    everything = await listed(api.ask)
    assert {None, tenant.id, neighbour.id} <= {one["tenant_id"] for one in everything}
    assert (everything[0]["pending"], everything[0]["tries"], everything[0]["error"]) == (None, 0, None)
    for ask, query in ((api.ask, f"?tenant_id={tenant.id}"), (tenant.ask, "")):
        assert [one["tenant_id"] for one in await listed(ask, query)] == [tenant.id]


async def test_pages(api: Gateway, tenant: Tenant) -> None:
    await raise_(api, *(of(tenant, number) for number in range(5)))
    seen, after = [], ""
    for more in (True, True, False):
        _, page, _ = await tenant.ask("GET", f"/v1/admin/alerts?limit=2{after}")
        seen += [one["fields"]["n"] for one in page["data"]]
        assert page["has_more"] == more
        after = f"&after={page['last_id']}"
    assert seen == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("query", ["after=job_1", "after=alert_x", "limit=0"])
async def test_a_bad_query_is_refused(tenant: Tenant, query: str) -> None:
    assert (await tenant.ask("GET", f"/v1/admin/alerts?{query}"))[0] == 400


async def test_the_command_lists_them(api: Gateway, tenant: Tenant, tmp_path: Path) -> None:
    await raise_(api, *(of(tenant, number) for number in range(4)))
    engine = db.create(api.env["SLUICE_DATABASE_URL"], pool_size=1, name="test")
    async with db.transaction(engine) as connection:
        for number, pending in enumerate((["ops"], [], [])):
            await connection.execute(
                text("UPDATE alerts SET pending = :pending, error = :error WHERE subject = :subject"),
                {"pending": pending, "error": ["e", "e", None][number], "subject": f"{tenant.id} {number}"},
            )
    await engine.dispose()
    code, out, err = await sluice_command(api, tmp_path, "alerts", "--tenant", tenant.id)
    assert code == 0, err
    rows = [line for line in out.splitlines() if "number" in line]
    said = ("not yet", "yes", "given up", "not ops")
    assert [word in row for word, row in zip(said, rows, strict=True)] == [True] * 4
    code, out, _ = await sluice_command(api, tmp_path, "alerts", "--tenant", tenant.id, "--json", "--limit", "1")
    assert [one["fields"]["n"] for one in orjson.loads(out)["data"]] == [3]
