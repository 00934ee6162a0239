"""Limits over HTTP: what a tenant, its teams and its end users may ask for. Those of a key are changed with the key.

What a tenant as a whole may do is for whoever has the bootstrap key to say; how it divides that, for its own admins.
"""

from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Self

from aiohttp import web
from pydantic import Field, model_validator

from gateway_api import reading
from gateway_api.access import Caller, check_bootstrap
from gateway_api.admin.changing import body, change_of, changing, listed_tenant, tenant_of, within
from gateway_api.admin.keys import Limits
from gateway_api.admin.teams import joined
from gateway_api.answers import as_json, page
from gateway_api.state import CALLER, STATE
from shared import ids
from shared.db import engine as db
from shared.db import rate_limits
from shared.db.rate_limits import LimitRow, Numbers
from shared.errors import ApiError, Fault
from shared.public import moment
from shared.schemas import LONGEST_USER

_WHOLE = "change the limits of a whole tenant"
NUMBERS = ("rpm", "tpm", "in_flight", "queued")
OF_THE_WHOLE = ("in_flight", "queued")
"""What is kept for whole tenants and for keys only: counted for a team or an end user it would be a number in a row."""


class LimitRequest(Limits):
    """`POST /v1/admin/limits`: of a tenant, or of a team or an end user of it; the end user `*` is each of them."""

    tenant_id: str | None = None
    team_id: str | None = None
    end_user: Annotated[str, Field(min_length=1, max_length=LONGEST_USER, pattern="^[^\0]*$")] | None = None

    @model_validator(mode="after")
    def _kept(self) -> Self:
        wrong = [] if self.team_id is None or self.end_user is None else ["it is of a team or of an end user, not both"]
        if wrong := wrong + _faults(self, part=self.team_id is not None or self.end_user is not None):
            raise ValueError("; ".join(wrong))
        return self


def _faults(asked: Limits | Numbers, *, part: bool) -> list[str]:
    """Return what is wrong with the numbers of limits; `part`: those of a team or an end user."""
    given = [name for name in NUMBERS if getattr(asked, name) is not None]
    wrong = [f"{name} is kept for tenants and keys only" for name in given if part and name in OF_THE_WHOLE]
    return wrong if given else [f"at least one of {', '.join(NUMBERS)} is needed"]


async def create(request: web.Request) -> web.Response:
    """`POST /v1/admin/limits` `{"team_id" | "end_user", "rpm", "tpm", "in_flight", "queued"}`."""
    asked, caller = await body(request, LimitRequest), request[CALLER]
    if asked.team_id is None and asked.end_user is None:
        check_bootstrap(caller, _WHOLE)
    numbers = Numbers(*(getattr(asked, name) for name in NUMBERS))
    async with changing(request) as (connection, made):
        tenant = await tenant_of(connection, caller, asked.tenant_id)
        team = await joined(connection, tenant, asked.team_id)
        row = await rate_limits.insert(connection, ids.new_id(), tenant, numbers, team_id=team, end_user=asked.end_user)
        if row is None:
            raise ApiError(409, "There are limits for this one: change or delete them.", code="limit_exists")
        if await rate_limits.count(connection, tenant) > rate_limits.MOST:
            raise ApiError(409, f"A tenant may have {rate_limits.MOST:,} limits.", code="too_many_limits")
        made.append(_change("create", None, row))
    return as_json(shown(row))


async def list_(request: web.Request) -> web.Response:
    """`GET /v1/admin/limits`: newest first."""
    limit, after = reading.limit(request), request.query.get("after")
    behind = None if after is None else reading.id_of("limit", after, param="after")
    async with db.transaction(request.app[STATE].engine) as connection:
        tenant = await listed_tenant(connection, request)
        rows = await rate_limits.page(connection, tenant, after=behind, limit=limit + 1)
    return page([shown(row) for row in rows], limit=limit)


async def retrieve(request: web.Request) -> web.Response:
    """`GET /v1/admin/limits/{id}`."""
    async with db.transaction(request.app[STATE].engine) as connection:
        return as_json(shown(await _limit(connection, request)))


async def update(request: web.Request) -> web.Response:
    """`PATCH /v1/admin/limits/{id}`: what is absent stays, null takes away."""
    asked = await body(request, Limits)
    async with changing(request) as (connection, made):
        before = await _limit(connection, request)
        part = _check_mine(request[CALLER], before)
        numbers = Numbers(*(getattr(before, name) for name in NUMBERS))
        numbers = replace(numbers, **{name: getattr(asked, name) for name in asked.model_fields_set})
        if wrong := _faults(numbers, part=part):
            raise reading.refusal([Fault("", one) for one in wrong])
        row = await rate_limits.update(connection, before.tenant_id, before.id, numbers)
        made.append(_change("update", before, row))
    return as_json(shown(row))


async def delete(request: web.Request) -> web.Response:
    """`DELETE /v1/admin/limits/{id}`."""
    async with changing(request) as (connection, made):
        row = await _limit(connection, request)
        _check_mine(request[CALLER], row)
        await rate_limits.delete(connection, row.tenant_id, row.id)
        made.append(_change("delete", row, None))
    return as_json(shown(row) | {"deleted": True})


def _check_mine(caller: Caller, row: LimitRow) -> bool:
    """Return whether limits are of a part of their tenant. Raises ApiError 403 where a caller may not change them."""
    part = row.team_id is not None or row.end_user is not None
    if not part:
        check_bootstrap(caller, _WHOLE)
    return part


async def _limit(connection: db.Connection, request: web.Request) -> LimitRow:
    row = await rate_limits.get(connection, within(request[CALLER]), reading.path_id(request, "limit"))
    if row is None:
        raise reading.not_found("limit", request.match_info["id"])
    return row


def shown(row: LimitRow) -> dict[str, Any]:
    """Return limits as callers see them."""
    return {
        "id": ids.show("limit", row.id),
        "object": "limit",
        "tenant_id": row.tenant_id,
        "team_id": ids.show("team", row.team_id) if row.team_id else None,
        "end_user": row.end_user,
        **{name: getattr(row, name) for name in NUMBERS},
        "created_at": moment(row.created_at),
    }


_change = partial(change_of, "limit", shown)
