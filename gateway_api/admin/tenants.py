"""Tenants over HTTP. Only the bootstrap key makes, renames and closes them; an admin sees its own."""

from typing import Annotated, Any

from aiohttp import web
from pydantic import AfterValidator, Field

from gateway_api import reading
from gateway_api.admin.changing import Closed, body, changing, closed, within
from gateway_api.answers import as_json, page
from gateway_api.state import CALLER, STATE
from shared import ids
from shared.db import engine as db
from shared.db import tenants
from shared.db.audit import Change
from shared.db.tenants import DEFAULT, TenantRow
from shared.errors import ApiError
from shared.public import moment
from shared.webhook_url import host_pattern


def _name(text: str) -> str:
    if text != text.strip() or not text.isprintable():
        raise ValueError("must be printable, without space at its ends")
    return text


def _no_id(text: str) -> str:
    if ids.parse("tenant", text) is not None:
        raise ValueError("looks like the id of a tenant")
    return text


Name = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_name)]


TenantName = Annotated[Name, AfterValidator(_no_id)]


class TenantRequest(Closed):
    """`POST /v1/admin/tenants`."""

    name: TenantName


class TenantChange(Closed):
    """`PATCH /v1/admin/tenants/{id}`: what is absent stays; `webhook_hosts` of null lets webhooks go to any host."""

    name: TenantName = ""
    webhook_hosts: (
        Annotated[list[Annotated[str, AfterValidator(host_pattern)]], Field(min_length=1, max_length=100)] | None
    ) = None


async def create(request: web.Request) -> web.Response:
    """`POST /v1/admin/tenants` `{"name"}`."""
    asked = await body(request, TenantRequest)
    async with changing(request) as (connection, made):
        row = await tenants.insert(connection, ids.show("tenant", ids.new_id()), name=asked.name)
        made.append(_change("create", None, row))
    return as_json(shown(row))


async def list_(request: web.Request) -> web.Response:
    """`GET /v1/admin/tenants`: newest first."""
    limit, after = reading.limit(request), request.query.get("after")
    if after is not None and after != DEFAULT:
        reading.id_of("tenant", after, param="after")
    async with db.transaction(request.app[STATE].engine) as connection:
        rows = await tenants.page(connection, only=within(request[CALLER]), after=after, limit=limit + 1)
    return page([shown(row) for row in rows], limit=limit)


async def retrieve(request: web.Request) -> web.Response:
    """`GET /v1/admin/tenants/{id}`."""
    async with db.transaction(request.app[STATE].engine) as connection:
        return as_json(shown(await _tenant(connection, request)))


async def update(request: web.Request) -> web.Response:
    """`PATCH /v1/admin/tenants/{id}` `{"name", "webhook_hosts"}`."""
    asked = await body(request, TenantChange)
    given = asked.model_fields_set
    async with changing(request) as (connection, made):
        before = await _tenant(connection, request)
        if before.closed_at is not None:
            raise closed("tenant")
        if before.id == DEFAULT and "name" in given:
            raise ApiError(409, "The tenant `default` keeps its name.", code="tenant_default")
        row = await tenants.update(
            connection,
            before.id,
            name=asked.name if "name" in given else before.name,
            webhook_hosts=asked.webhook_hosts if "webhook_hosts" in given else before.webhook_hosts,
        )
        made.append(_change("update", before, row))
    return as_json(shown(row))


async def delete(request: web.Request) -> web.Response:
    """`DELETE /v1/admin/tenants/{id}`: its keys stop; what was submitted ends, and is kept as any other."""
    async with changing(request) as (connection, made):
        row = before = await _tenant(connection, request)
        if before.id == DEFAULT:
            raise ApiError(409, "The tenant `default` cannot be closed.", code="tenant_default")
        if before.closed_at is None:
            row = await tenants.close(connection, before.id)
            made.append(_change("close", before, row))
    return as_json(shown(row) | {"deleted": True})


async def _tenant(connection: db.Connection, request: web.Request) -> TenantRow:
    named, only = request.match_info["id"], within(request[CALLER])
    there = named == DEFAULT or ids.parse("tenant", named) is not None
    row = await tenants.get(connection, named) if there and only in (None, named) else None
    if row is None:
        raise reading.not_found("tenant", named)
    return row


def _change(verb: str, before: TenantRow | None, row: TenantRow) -> Change:
    return Change(f"tenant.{verb}", "tenant", row.id, row.id, before and shown(before), shown(row))


def shown(row: TenantRow) -> dict[str, Any]:
    """Return a tenant as callers see it."""
    return {
        "id": row.id,
        "object": "tenant",
        "name": row.name,
        "webhook_hosts": row.webhook_hosts,
        "created_at": moment(row.created_at),
        "closed_at": moment(row.closed_at),
    }
