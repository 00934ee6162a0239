"""Usage over HTTP: what was used, by whom and of what, and what it cost, from hourly roll-ups."""

from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from gateway_api import reading, usage_query
from gateway_api.admin.changing import listed_tenant
from gateway_api.answers import as_json
from gateway_api.state import CALLER, STATE
from shared.db import engine as db
from shared.db import usage
from shared.errors import Fault
from shared.usage_report import as_csv, shown, used

MOST_DAYS = 31


async def list_(request: web.Request) -> web.Response:
    """`GET /v1/usage`: by span of time and what it is grouped by; JSON or CSV."""
    state = request.app[STATE]
    query = usage_query.read(request, request[CALLER], state.config.usage.tags)
    asked = query.asked
    async with db.transaction(state.engine) as connection:
        rows = await usage.read(connection, asked)
    held, more = rows[: query.limit], len(rows) > query.limit
    data = [shown(row, asked.groups, usage_query.begins(row, asked)) for row in held]
    last = usage_query.cursor(held[-1], asked) if held else None
    link = {"Link": f'<{request.rel_url.update_query({"after": str(last)})}>; rel="next"'} if more else {}
    if query.csv:
        disposition = {"Content-Disposition": 'attachment; filename="usage.csv"'}
        return web.Response(
            text=as_csv(data, asked.groups), content_type="text/csv", charset="utf-8", headers=disposition | link
        )
    return as_json({"object": "list", "data": data, "last_id": last, "has_more": more}, headers=link)


async def upstream(request: web.Request) -> web.Response:
    """`GET /v1/admin/usage/upstream`: by day of UTC, provider and upstream model, for a comparison with its bill."""
    state = request.app[STATE]
    start, end = _days(request)
    async with db.transaction(state.engine) as connection:
        tenant = await listed_tenant(connection, request)
        rows = await usage.upstream(connection, tenant, start=start, end=end)
    kinds = {name: provider.kind for name, provider in state.config.providers.items()}
    return as_json(
        {"object": "list", "data": [_shown(row, kinds.get(row.provider)) for row in rows], "has_more": False}
    )


def _days(request: web.Request) -> tuple[datetime, datetime]:
    """Return from when to when the days of a query are; `end` is the last of them. Raises ApiError 400."""
    faults: list[Fault] = []
    found: list[datetime] = []
    for name in ("start", "end"):
        try:
            found.append(datetime.strptime(request.query.get(name, ""), "%Y-%m-%d").replace(tzinfo=UTC))
        except ValueError:
            faults.append(Fault(name, "must be a day of UTC such as 2026-11-21"))
    if not faults and not timedelta(0) <= found[1] - found[0] < timedelta(days=MOST_DAYS):
        faults.append(Fault("end", f"must be `start` or up to {MOST_DAYS - 1} days after it"))
    if not faults and not 1971 <= found[0].year < 9000:
        faults.append(Fault("start", "is out of range"))
    if faults:
        raise reading.refusal(faults)
    return found[0], found[1] + timedelta(days=1)


def _shown(row: Any, kind: str | None) -> dict[str, Any]:
    return {
        "date": row.day.isoformat(),
        "provider": row.provider,
        "kind": kind,
        "model": row.model,
        "attempts": row.attempts,
        "estimated": row.estimated,
        **used(row),
    }
