"""Budgets over HTTP: limits on what a tenant spends, or a part of it.

A budget on a whole tenant is for whoever has the bootstrap key to make and to change; the others for the tenant's own
admins. What a budget's jobs wait for is looked at anew when it changes.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import UUID

from aiohttp import web

from gateway_api import reading
from gateway_api.access import Caller, check_bootstrap
from gateway_api.admin.budget_request import BudgetChange, BudgetRequest, Scope, changes, check
from gateway_api.admin.changing import body, change_of, changing, listed_tenant, tenant_of, within
from gateway_api.admin.teams import joined
from gateway_api.answers import as_json, page
from gateway_api.state import CALLER, STATE, State
from shared import ids
from shared.commit import bring_forward
from shared.db import api_keys, budgets
from shared.db import engine as db
from shared.db.budgets import BudgetRow, NewBudget
from shared.errors import ApiError
from shared.pricing import NANOS
from shared.public import moment, money
from shared.queue import RedisAway

_WHOLE = "make or change the budget of a whole tenant"


async def create(request: web.Request) -> web.Response:
    """`POST /v1/admin/budgets` `{"scope", "window", "limit_usd", "kind", "on_exhausted"}`."""
    asked, caller, state = await body(request, BudgetRequest), request[CALLER], request.app[STATE]
    scope = asked.scope
    if scope.whole:
        check_bootstrap(caller, _WHOLE)
    check(state.config, scope, asked.downgrade_to, allow_unpriced=asked.allow_unpriced)
    async with changing(request) as (connection, made):
        tenant = await tenant_of(connection, caller, scope.tenant_id)
        new = NewBudget(
            tenant_id=tenant,
            limit_nanos=int(asked.limit_usd * NANOS),
            period=asked.window,
            hard=asked.kind == "hard",
            on_exhausted=asked.on_exhausted,
            timezone=asked.timezone,
            team_id=await joined(connection, tenant, scope.team_id),
            key_id=await _key(connection, tenant, scope.key_id),
            end_user=scope.user,
            tag=scope.tag,
            model=scope.model,
            downgrade_to=asked.downgrade_to,
            allow_unpriced=asked.allow_unpriced,
            thresholds=asked.thresholds,
        )
        id_ = await budgets.insert(connection, new)
        if await budgets.count(connection, tenant) > budgets.MOST:
            raise ApiError(409, f"A tenant may have {budgets.MOST:,} budgets.", code="too_many_budgets")
        row = await budgets.get(connection, tenant, id_)
        assert row is not None
        made.append(_change("create", None, row))
    state.funds.forget(tenant)
    return as_json(shown(row))


async def list_(request: web.Request) -> web.Response:
    """`GET /v1/admin/budgets`: newest first."""
    limit, after = reading.limit(request), request.query.get("after")
    behind = None if after is None else reading.id_of("budget", after, param="after")
    async with db.transaction(request.app[STATE].engine) as connection:
        rows = await budgets.page(connection, await listed_tenant(connection, request), after=behind, limit=limit + 1)
    return page([shown(row) for row in rows], limit=limit)


async def retrieve(request: web.Request) -> web.Response:
    """`GET /v1/admin/budgets/{id}`."""
    async with db.transaction(request.app[STATE].engine) as connection:
        return as_json(shown(await _budget(connection, request)))


async def update(request: web.Request) -> web.Response:
    """`PATCH /v1/admin/budgets/{id}`: limit, kind, what follows when it is exhausted, thresholds."""
    asked, state = await body(request, BudgetChange), request.app[STATE]
    async with changing(request) as (connection, made):
        before = await _budget(connection, request)
        _check_mine(request[CALLER], before)
        changed = changes(asked, before)
        unpriced = changed.get("allow_unpriced", before.allow_unpriced)
        check(state.config, Scope(), changed.get("downgrade_to"), allow_unpriced=unpriced)
        row = before
        held: Sequence[Any] = ()
        if changed:
            await budgets.change(connection, before.tenant_id, before.id, changed)
            held = await budgets.let_go(connection, before.tenant_id, before.id)
            row = await _budget(connection, request)
            made.append(_change("update", before, row))
    await _changed(state, row.tenant_id, held)
    return as_json(shown(row))


async def delete(request: web.Request) -> web.Response:
    """`DELETE /v1/admin/budgets/{id}`: it limits nothing any more; what was spent stays in the ledger."""
    async with changing(request) as (connection, made):
        row = await _budget(connection, request)
        _check_mine(request[CALLER], row)
        await budgets.close(connection, row.tenant_id, row.id)
        held = await budgets.let_go(connection, row.tenant_id, row.id)
        made.append(_change("delete", row, None))
    await _changed(request.app[STATE], row.tenant_id, held)
    return as_json(shown(row) | {"deleted": True})


async def _key(connection: db.Connection, tenant_id: str, named: str | None) -> UUID | None:
    """Return the key of a tenant whose spend is limited. Raises ApiError 404."""
    if named is None:
        return None
    id_ = ids.parse("key", named)
    row = await api_keys.get(connection, tenant_id, id_) if id_ is not None else None
    if row is None or row.revoked_at is not None:
        raise ApiError(404, f"No such key: {named[:100]!r}.", code="key_not_found", param="scope.key_id")
    return id_


async def _changed(state: State, tenant: str, held: Sequence[Any]) -> None:
    """Have a changed budget seen here at once, and the jobs that it held looked at anew."""
    state.funds.forget(tenant)
    with suppress(*RedisAway):  # maintenance finds that they are due
        await bring_forward(state.queue, held)


def _check_mine(caller: Caller, row: BudgetRow) -> None:
    if not row.subject and row.tag is None and row.model is None:
        check_bootstrap(caller, _WHOLE)


async def _budget(connection: db.Connection, request: web.Request) -> BudgetRow:
    row = await budgets.get(connection, within(request[CALLER]), reading.path_id(request, "budget"))
    if row is None or row.batch_id is not None:
        raise reading.not_found("budget", request.match_info["id"])
    return row


def shown(row: BudgetRow) -> dict[str, Any]:
    """Return a budget as callers see it, with its present window."""
    left = row.limit_nanos - row.spent_nanos - row.reserved_nanos
    return _stored(row) | {
        "present": {
            "starts_at": moment(row.starts_at),
            "ends_at": moment(row.ends_at),
            "spent_usd": money(row.spent_nanos),
            "reserved_usd": money(row.reserved_nanos),
            "remaining_usd": money(max(left, 0)),
        },
    }


def _stored(row: BudgetRow) -> dict[str, Any]:
    scope = {
        "tenant_id": row.tenant_id,
        "team_id": ids.show("team", row.team_id) if row.team_id else None,
        "key_id": ids.show("key", row.key_id) if row.key_id else None,
        "user": row.end_user,
        "tag": row.tag,
        "model": row.model,
    }
    return {
        "id": ids.show("budget", row.id),
        "object": "budget",
        "tenant_id": row.tenant_id,
        "scope": {name: value for name, value in scope.items() if value is not None},
        "window": row.period,
        "timezone": row.timezone,
        "limit_usd": money(row.limit_nanos),
        "kind": "hard" if row.hard else "soft",
        "on_exhausted": row.on_exhausted,
        "downgrade_to": row.downgrade_to,
        "allow_unpriced": row.allow_unpriced,
        "thresholds": row.thresholds,
        "created_at": moment(row.created_at),
    }


_change = partial(change_of, "budget", _stored)
