"""The audit log over HTTP: read only, since entries are made by the changes themselves."""

from typing import Any

from aiohttp import web

from gateway_api import reading
from gateway_api.admin.changing import listed_tenant, within
from gateway_api.answers import as_json, page
from gateway_api.state import CALLER, STATE
from shared import ids
from shared.db import audit
from shared.db import engine as db
from shared.db.audit import EntryRow
from shared.errors import ApiError
from shared.public import moment


async def list_(request: web.Request) -> web.Response:
    """`GET /v1/admin/audit`: newest first; `object_id` restricts it to one tenant, team or key."""
    limit, after, of = reading.limit(request), request.query.get("after"), request.query.get("object_id")
    behind = None if after is None else reading.id_of("audit", after, param="after")
    if of is not None and not of.isprintable():
        raise ApiError(400, "object_id is not an id.", param="object_id")
    async with db.transaction(request.app[STATE].engine) as connection:
        tenant = await listed_tenant(connection, request)
        rows = await audit.page(connection, tenant, object_id=of, after=behind, limit=limit + 1)
    return page([_shown(row) for row in rows], limit=limit)


async def retrieve(request: web.Request) -> web.Response:
    """`GET /v1/admin/audit/{id}`."""
    async with db.transaction(request.app[STATE].engine) as connection:
        row = await audit.get(connection, within(request[CALLER]), reading.path_id(request, "audit"))
    if row is None:
        raise reading.not_found("audit", request.match_info["id"])
    return as_json(_shown(row))


def _shown(row: EntryRow) -> dict[str, Any]:
    return {
        "id": ids.show("audit", row.id),
        "object": "audit_entry",
        "at": moment(row.at),
        "actor": row.actor,
        "action": row.action,
        "object_type": row.object_type,
        "object_id": row.object_id,
        "tenant_id": row.tenant_id,
        "before": row.before,
        "after": row.after,
        "request_id": row.request_id,
    }
