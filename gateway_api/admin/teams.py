"""Teams over HTTP: the parts of a tenant that its keys, and so its jobs, belong to."""

from functools import partial
from typing import Any
from uuid import UUID

from aiohttp import web

from gateway_api import reading
from gateway_api.admin.changing import Closed, body, change_of, changing, closed, listed_tenant, tenant_of, within
from gateway_api.admin.tenants import Name
from gateway_api.answers import as_json, page
from gateway_api.state import CALLER, STATE
from shared import ids
from shared.db import api_keys, teams
from shared.db import engine as db
from shared.db.teams import TeamRow
from shared.errors import ApiError
from shared.public import moment


class TeamRequest(Closed):
    """`POST /v1/admin/teams`."""

    name: Name
    tenant_id: str | None = None


class TeamChange(Closed):
    """`PATCH /v1/admin/teams/{id}`."""

    name: Name


async def create(request: web.Request) -> web.Response:
    """`POST /v1/admin/teams` `{"tenant_id", "name"}`."""
    asked = await body(request, TeamRequest)
    async with changing(request) as (connection, made):
        tenant = await tenant_of(connection, request[CALLER], asked.tenant_id)
        row = await teams.insert(connection, ids.new_id(), tenant, name=asked.name)
        made.append(_change("create", None, row))
    return as_json(shown(row))


async def list_(request: web.Request) -> web.Response:
    """`GET /v1/admin/teams`: newest first."""
    limit, after = reading.limit(request), request.query.get("after")
    behind = None if after is None else reading.id_of("team", after, param="after")
    async with db.transaction(request.app[STATE].engine) as connection:
        rows = await teams.page(connection, await listed_tenant(connection, request), after=behind, limit=limit + 1)
    return page([shown(row) for row in rows], limit=limit)


async def retrieve(request: web.Request) -> web.Response:
    """`GET /v1/admin/teams/{id}`."""
    async with db.transaction(request.app[STATE].engine) as connection:
        return as_json(shown(await _team(connection, request)))


async def update(request: web.Request) -> web.Response:
    """`PATCH /v1/admin/teams/{id}` `{"name"}`."""
    asked = await body(request, TeamChange)
    async with changing(request) as (connection, made):
        before = await _team(connection, request)
        if before.closed_at is not None:
            raise closed("team")
        row = await teams.rename(connection, before.tenant_id, before.id, name=asked.name)
        made.append(_change("update", before, row))
    return as_json(shown(row))


async def delete(request: web.Request) -> web.Response:
    """`DELETE /v1/admin/teams/{id}`: only one whose keys are all revoked or in other teams by now."""
    async with changing(request) as (connection, made):
        row = before = await _team(connection, request)
        if before.closed_at is None:
            if await api_keys.in_team(connection, before.tenant_id, before.id):
                raise ApiError(409, "Revoke the team's keys first, or move them.", code="team_has_keys")
            row = await teams.close(connection, before.tenant_id, before.id)
            made.append(_change("close", before, row))
    return as_json(shown(row) | {"deleted": True})


async def joined(connection: db.Connection, tenant_id: str, named: str | None) -> UUID | None:
    """Return the open team of a tenant that a key is put in. Raises ApiError 404."""
    if named is None:
        return None
    id_ = ids.parse("team", named)
    row = await teams.get(connection, tenant_id, id_) if id_ is not None else None
    if row is None or row.closed_at is not None:
        raise ApiError(404, f"No such team: {named[:100]!r}.", code="team_not_found", param="team_id")
    return id_


async def _team(connection: db.Connection, request: web.Request) -> TeamRow:
    row = await teams.get(connection, within(request[CALLER]), reading.path_id(request, "team"))
    if row is None:
        raise reading.not_found("team", request.match_info["id"])
    return row


def shown(row: TeamRow) -> dict[str, Any]:
    """Return a team as callers see it."""
    return {
        "id": ids.show("team", row.id),
        "object": "team",
        "tenant_id": row.tenant_id,
        "name": row.name,
        "created_at": moment(row.created_at),
        "closed_at": moment(row.closed_at),
    }


_change = partial(change_of, "team", shown)
