"""Deliveries over HTTP and on the command line: lists, one with its tries, and events that are to come again."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from tests.api.conftest import Tenant, fetch_row, new_key
from tests.commands import sluice_command
from tests.gateway import Gateway

PATH = "/v1/webhook_deliveries"
ENDPOINTS = "/v1/webhook_endpoints"
HOUR_AGO = (datetime.now(UTC) - timedelta(hours=1)).isoformat()

_ADD = """
INSERT INTO deliveries (id, event_id, tenant_id, endpoint_id, lane, type, job_id, status, tries, finished_at,
    answer_status)
SELECT new_id(), new_id(), $1, $2::uuid, $3, $4, new_id(), $5, 1, CASE WHEN $5 <> 'pending' THEN now() END, 500
RETURNING id, event_id, job_id
"""
_TRIED = """
INSERT INTO delivery_attempts (delivery_id, number, tenant_id, status, error, ms, excerpt)
VALUES ($1, 1, $2, NULL, 'no answer within 20 s', 20001, NULL), ($1, 2, $2, 500, NULL, 12, 'oh no') RETURNING number
"""


async def endpoint(tenant: Tenant, **fields: Any) -> str:
    asked = {"url": "https://hooks.example.com/in", "name": "mine", "event_types": ["job.completed"], **fields}
    status, made, _ = await tenant.ask("POST", ENDPOINTS, asked)
    assert status == 200, made
    return str(made["id"])


async def add(tenant: Tenant, of: str, *, status: str = "exhausted", type_: str = "job.completed") -> dict[str, str]:
    id_ = of.removeprefix("webhook_")
    row = await fetch_row(tenant.api, _ADD, tenant.id, id_, id_, type_, status)
    return {name: row[name].hex for name in ("id", "event_id", "job_id")}


async def listed(tenant: Tenant, path: str) -> list[str]:
    status, page, _ = await tenant.ask("GET", path)
    assert status == 200, page
    return [one["id"].removeprefix("delivery_") for one in page["data"]]


async def test_deliveries_are_listed_newest_first_and_by_what_is_asked(tenant: Tenant, neighbour: Tenant) -> None:
    here, there = await endpoint(tenant), await endpoint(tenant)
    first = await add(tenant, here, status="delivered")
    dead = await add(tenant, here, type_="job.failed")
    other = await add(tenant, there)
    assert await listed(tenant, PATH) == [other["id"], dead["id"], first["id"]]
    assert await listed(tenant, f"{ENDPOINTS}/{here}/deliveries") == [dead["id"], first["id"]]
    assert await listed(tenant, f"{ENDPOINTS}/{here}/deliveries?limit=1") == [dead["id"]]
    assert await listed(tenant, f"{ENDPOINTS}/{here}/deliveries?after=delivery_{dead['id']}") == [first["id"]]
    assert await listed(tenant, f"{PATH}?status=exhausted") == [other["id"], dead["id"]]
    assert await listed(tenant, f"{PATH}?status=exhausted&type=job.failed") == [dead["id"]]
    assert await listed(tenant, f"{PATH}?job_id=job_{first['job_id']}") == [first["id"]]
    assert await listed(tenant, f"{PATH}?event_id=evt_{dead['event_id']}&endpoint_id={here}") == [dead["id"]]
    assert await listed(neighbour, PATH) == []
    assert (await neighbour.ask("GET", f"{ENDPOINTS}/{here}/deliveries"))[0] == 404
    for query in ("status=lost", "type=job.done", "job_id=1", "nothing=1", f"after={here}"):
        status, shape, _ = await tenant.ask("GET", f"{PATH}?{query}")
        assert (status, shape["error"]["param"]) == (400, query.partition("=")[0])


async def test_a_delivery_tells_its_tries(tenant: Tenant, neighbour: Tenant) -> None:
    here = await endpoint(tenant)
    one = await add(tenant, here, status="pending")
    await fetch_row(tenant.api, _TRIED, one["id"], tenant.id)
    status, found, _ = await tenant.ask("GET", f"{PATH}/delivery_{one['id']}")
    assert status == 200
    assert (found["status"], found["url"], found["webhook_endpoint_id"]) == (
        "pending", "https://hooks.example.com/in", here
    )  # fmt: skip
    assert found["next_try_at"] is not None
    assert found["finished_at"] is None
    assert [(each["number"], each["status_code"], each["error"], each["excerpt"]) for each in found["attempts"]] == [
        (1, None, "no answer within 20 s", None),
        (2, 500, None, "oh no"),
    ]
    assert found["attempts"][0]["latency_ms"] == 20_001
    assert (await neighbour.ask("GET", f"{PATH}/delivery_{one['id']}"))[0] == 404


async def test_an_event_is_delivered_again_with_its_id(tenant: Tenant) -> None:
    here = await endpoint(tenant)
    one = await add(tenant, here)
    status, made, headers = await tenant.ask("POST", f"{PATH}/delivery_{one['id']}/redeliver")
    assert (status, made["event_id"], made["status"], made["tries"]) == (202, f"evt_{one['event_id']}", "pending", 0)
    assert headers["Location"] == f"{PATH}/{made['id']}"
    status, shape, _ = await tenant.ask("POST", f"{PATH}/{made['id']}/redeliver")
    assert (status, shape["error"]["code"]) == (409, "delivery_pending")
    assert (await tenant.ask("PATCH", f"{ENDPOINTS}/{here}", {"enabled": False}))[0] == 200
    for path in (f"{PATH}/delivery_{one['id']}/redeliver", f"{ENDPOINTS}/{here}/replay"):
        status, shape, _ = await tenant.ask("POST", path, {"since": HOUR_AGO})
        assert (status, shape["error"]["code"]) == (409, "webhook_disabled")


async def test_an_endpoints_events_come_again_since_a_moment(tenant: Tenant) -> None:
    here = await endpoint(tenant)
    dead, done = await add(tenant, here), await add(tenant, here, status="delivered")
    await add(tenant, here, status="pending")

    async def replayed(**asked: Any) -> Any:
        status, told, _ = await tenant.ask("POST", f"{ENDPOINTS}/{here}/replay", {"since": HOUR_AGO, **asked})
        assert status == 202, told
        return told["replayed"], told["has_more"]

    assert await replayed(until=HOUR_AGO) == (0, False)
    assert await replayed(types=["job.failed"]) == (0, False)
    assert await replayed(status="exhausted") == (1, False)
    # Many at once are one after the other, and what one makes the next leaves alone.
    answers = await asyncio.gather(
        *(tenant.ask("POST", f"{ENDPOINTS}/{here}/replay", {"since": HOUR_AGO}) for _ in range(10))
    )
    assert {status for status, _, _ in answers} <= {202, 409}
    assert sum(told.get("replayed", 0) for _, told, _ in answers) == 1
    _, page, _ = await tenant.ask("GET", f"{PATH}?status=pending")
    assert [one["event_id"].removeprefix("evt_") for one in page["data"][:2]] == [done["event_id"], dead["event_id"]]
    for asked, param in (
        ({}, "since"),
        ({"since": "yesterday"}, "since"),
        ({"since": "2020-01-01T00:00:00Z"}, "since"),
        ({"since": HOUR_AGO, "status": "pending"}, "status"),
        ({"since": HOUR_AGO, "types": ["job.done"]}, "types[0]"),
    ):
        status, shape, _ = await tenant.ask("POST", f"{ENDPOINTS}/{here}/replay", asked)
        assert (status, shape["error"]["param"]) == (400, param), shape


async def test_the_command_line_shows_and_repeats(api: Gateway, tenant: Tenant, tmp_path: Path) -> None:
    key = (await new_key(tenant, scopes=["webhooks"])).secret
    here = await endpoint(tenant)
    one = await add(tenant, here)
    await fetch_row(api, _TRIED, one["id"], tenant.id)

    async def run(*arguments: str) -> str:
        code, out, err = await sluice_command(api, tmp_path, "webhooks", *arguments, key=key)
        assert code == 0, err
        return out

    rows = (await run("deliveries", here, "--status", "exhausted")).splitlines()
    assert rows[1].split()[0] == f"delivery_{one['id']}"
    shown = await run("delivery", f"delivery_{one['id']}")
    assert "oh no" in shown
    assert "no answer within 20 s" in shown
    again = orjson.loads(await run("redeliver", f"delivery_{one['id']}", "--json"))
    assert again["event_id"] == f"evt_{one['event_id']}"
    assert (await run("replay", here, "--since", HOUR_AGO)).split()[:2] == ["replayed", "0"]  # it is pending
