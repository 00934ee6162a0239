"""Alerts over HTTP: read only. A tenant's administrators see those of their tenant, the operator all."""

from typing import Any

from aiohttp import web

from gateway_api import reading
from gateway_api.admin.changing import listed_tenant
from gateway_api.answers import page
from gateway_api.state import CALLER, STATE
from shared import public
from shared.db import alerts
from shared.db import engine as db
from shared.db.alerts import AlertRow


async def list_(request: web.Request) -> web.Response:
    """`GET /v1/admin/alerts`: newest first; `tenant_id` restricts it to one tenant."""
    limit, after = reading.limit(request), request.query.get("after")
    behind = None if after is None else reading.id_of("alert", after, param="after")
    operator = request[CALLER].key_id is None
    async with db.transaction(request.app[STATE].engine) as connection:
        tenant = await listed_tenant(connection, request)
        rows = await alerts.page(connection, tenant, after=behind, limit=limit + 1)
    return page([_shown(row, operator=operator) for row in rows], limit=limit)


def _shown(row: AlertRow, *, operator: bool) -> dict[str, Any]:
    """Return an alert; which channels there are, and what is wrong with them, is the operator's."""
    told = {"pending": row.pending, "tries": row.tries, "error": row.error} if operator else {}
    return public.alert(row) | told
