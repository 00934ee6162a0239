"""Limits, made and changed over HTTP: what is refused, by whom they may be changed, and that it is written down."""

from typing import Any

import pytest

from tests.api.conftest import Tenant, fetch_row, new_key

NUMBERS = {"rpm": 5, "tpm": None, "in_flight": None, "queued": None}


async def team(tenant: Tenant) -> str:
    status, made, _ = await tenant.ask("POST", "/v1/admin/teams", {"name": "t", "tenant_id": tenant.id})
    assert status == 200, made
    return str(made["id"])


async def test_limits_are_made_read_changed_and_deleted(tenant: Tenant) -> None:
    admin = await new_key(tenant, role="admin")
    group = await team(tenant)
    status, made, _ = await admin.ask("POST", "/v1/admin/limits", {"team_id": group, "rpm": 5})
    assert status == 200
    assert made["id"].startswith("limit_")
    assert {name: made[name] for name in NUMBERS} == NUMBERS
    assert (made["object"], made["tenant_id"], made["team_id"], made["end_user"]) == ("limit", tenant.id, group, None)
    path = f"/v1/admin/limits/{made['id']}"
    assert (await admin.ask("GET", path))[1] == made

    _, every, _ = await admin.ask("POST", "/v1/admin/limits", {"end_user": "*", "tpm": 100})
    _, listed, _ = await admin.ask("GET", "/v1/admin/limits")
    assert [one["id"] for one in listed["data"]] == [every["id"], made["id"]]
    _, first, _ = await admin.ask("GET", "/v1/admin/limits?limit=1")
    assert (len(first["data"]), first["has_more"]) == (1, True)
    _, rest, _ = await admin.ask("GET", f"/v1/admin/limits?after={every['id']}")
    assert [one["id"] for one in rest["data"]] == [made["id"]]

    status, changed, _ = await admin.ask("PATCH", path, {"rpm": None, "tpm": 7})
    assert (status, changed) == (200, made | {"rpm": None, "tpm": 7})
    status, gone, _ = await admin.ask("DELETE", path)
    assert (status, gone) == (200, changed | {"deleted": True})
    assert (await admin.ask("GET", path))[0] == 404
    assert (await admin.ask("DELETE", path))[0] == 404

    _, log, _ = await tenant.ask("GET", f"/v1/admin/audit?object_id={made['id']}")
    assert [(one["action"], one["before"], one["after"]) for one in log["data"]] == [
        ("limit.delete", changed, None),
        ("limit.update", made, changed),
        ("limit.create", None, made),
    ]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, ["at least one of rpm, tpm, in_flight, queued"]),
        ({"end_user": "ada"}, ["at least one of"]),
        ({"rpm": 0}, ["rpm"]),
        ({"rpm": True}, ["rpm"]),
        ({"rpm": 1.5, "tpm": "7", "color": 1}, ["rpm", "tpm", "color"]),
        ({"rpm": 1, "end_user": ""}, ["end_user"]),
        ({"rpm": 1, "end_user": "a\0b"}, []),
        ({"rpm": 1, "end_user": "x" * 257}, ["end_user"]),
        ({"end_user": "ada", "in_flight": 1, "queued": 1}, ["in_flight is kept for tenants", "queued is kept for"]),
        (
            {"end_user": "ada", "team_id": "team_" + "0" * 32, "queued": 1},
            ["of a team or of an end user, not both", "queued is kept for tenants and keys only"],
        ),
    ],
)
async def test_what_is_wrong_is_said_at_once(tenant: Tenant, asked: dict[str, Any], said: list[str]) -> None:
    status, shape, _ = await tenant.ask("POST", "/v1/admin/limits", {"tenant_id": tenant.id, **asked})
    assert (status, shape["error"]["type"]) == (400, "invalid_request_error")
    for one in said:
        assert one in shape["error"]["message"], shape
    assert (await fetch_row(tenant.api, "SELECT count(*) FROM rate_limits WHERE tenant_id = $1", tenant.id))[0] == 0


async def test_a_change_leaves_something_that_is_kept(tenant: Tenant) -> None:
    _, made, _ = await tenant.ask("POST", "/v1/admin/limits", {"tenant_id": tenant.id, "end_user": "*", "rpm": 5})
    path = f"/v1/admin/limits/{made['id']}"
    for asked in ({"rpm": None}, {"queued": 4}, {"in_flight": 1}, {"end_user": "ada"}, {"rpm": -1}):
        assert (await tenant.ask("PATCH", path, asked))[0] == 400, asked
    assert (await tenant.ask("GET", path))[1] == made


async def test_one_row_for_each(tenant: Tenant) -> None:
    group = await team(tenant)
    for of in ({}, {"team_id": group}, {"end_user": "*"}, {"end_user": "ada"}):
        asked = {"tenant_id": tenant.id, "rpm": 5, **of}
        assert (await tenant.ask("POST", "/v1/admin/limits", asked))[0] == 200
        status, shape, _ = await tenant.ask("POST", "/v1/admin/limits", asked)
        assert (status, shape["error"]["code"]) == (409, "limit_exists")


async def test_a_tenants_own_limits_are_not_its_admins_to_change(tenant: Tenant) -> None:
    owner = await new_key(tenant, role="owner")
    status, shape, _ = await owner.ask("POST", "/v1/admin/limits", {"rpm": 5})
    assert (status, shape["error"]["code"]) == (403, "bootstrap_required")
    _, made, _ = await tenant.ask(
        "POST", "/v1/admin/limits", {"tenant_id": tenant.id, "rpm": 5, "in_flight": 2, "queued": 9}
    )
    path = f"/v1/admin/limits/{made['id']}"
    assert (await owner.ask("GET", path))[1] == made
    for method, asked in (("PATCH", {"rpm": 500}), ("DELETE", None)):
        status, shape, _ = await owner.ask(method, path, asked)
        assert (status, shape["error"]["code"]) == (403, "bootstrap_required")
    assert (await tenant.ask("PATCH", path, {"in_flight": 3}))[1] == made | {"in_flight": 3}


async def test_limits_of_another_tenant_are_not_there(tenant: Tenant, neighbour: Tenant) -> None:
    mine, theirs = await new_key(tenant, role="owner"), await new_key(neighbour, role="owner")
    group = await team(tenant)
    _, made, _ = await mine.ask("POST", "/v1/admin/limits", {"end_user": "ada", "rpm": 5})
    for method, asked in (("GET", None), ("PATCH", {"rpm": 6}), ("DELETE", None)):
        assert (await theirs.ask(method, f"/v1/admin/limits/{made['id']}", asked))[0] == 404
    assert (await theirs.ask("GET", "/v1/admin/limits"))[1]["data"] == []
    assert (await theirs.ask("GET", f"/v1/admin/limits?tenant_id={tenant.id}"))[0] == 404
    for asked in ({"team_id": group}, {"tenant_id": tenant.id, "end_user": "ada"}):
        assert (await theirs.ask("POST", "/v1/admin/limits", {"rpm": 5, **asked}))[0] == 404
    assert (await mine.ask("GET", f"/v1/admin/limits/{made['id']}"))[1] == made
