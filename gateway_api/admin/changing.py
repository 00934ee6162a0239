"""What every change has in common: one transaction with its entries in the audit log, and then every front door knows.

Also whose tenant an administrative request is about, and how its body is read.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from gateway_api import reading
from gateway_api.access import Caller
from gateway_api.state import CALLER, REQUEST_ID, STATE
from shared import ids
from shared.db import audit, tenants
from shared.db import engine as db
from shared.db.audit import Change
from shared.errors import ApiError
from shared.schemas import faults_of

M = TypeVar("M", bound=BaseModel)


class Closed(BaseModel):
    """A body: its fields are all that can be written."""

    model_config = ConfigDict(extra="forbid", frozen=True)


async def body(request: web.Request, model: type[M], *, may_be_empty: bool = False) -> M:
    """Return a request's body. Raises ApiError 400 with every fault."""
    raw = await reading.body_bytes(request)
    try:
        return model.model_validate(reading.json_object(raw if raw or not may_be_empty else b"{}"))
    except ValidationError as error:
        raise reading.refusal(faults_of(error)) from None


@asynccontextmanager
async def changing(request: web.Request) -> AsyncIterator[tuple[db.Connection, list[Change]]]:
    """Give a transaction and a list for what is changed in it, which goes to the audit log and to every front door.

    Raises ApiError: 409 where a name is taken, 503 where Postgres is away.
    """
    state, caller = request.app[STATE], request[CALLER]
    made: list[Change] = []
    try:
        async with db.transaction(state.engine) as connection:
            yield connection, made
            for change in made:
                await audit.record(connection, change, actor=caller.actor, request_id=request[REQUEST_ID])
    except Exception as error:
        if db.is_refused(error):
            raise ApiError(409, "Another one has this name.", code="name_taken", param="name") from None
        raise
    if made:
        await state.callers.changed()


def change_of(
    noun: ids.Prefix, shown: Callable[[Any], dict[str, Any]], verb: str, before: Any | None, row: Any | None
) -> Change:
    """Return the entry of the audit log for a row that was made, changed or deleted, as callers are `shown` it."""
    of: Any = row if row is not None else before
    return Change(
        f"{noun}.{verb}", noun, ids.show(noun, of.id), of.tenant_id, before and shown(before), row and shown(row)
    )


def within(caller: Caller) -> str | None:
    """Return the tenant whose rows a caller may see, None for all."""
    return None if caller.everywhere else caller.tenant


async def tenant_of(connection: db.Connection, caller: Caller, named: str | None) -> str:
    """Return the id of the open tenant that something is made in: the one named (by name or id), else the caller's.

    Raises ApiError 404 for one that is not there, or not the caller's.
    """
    if caller.everywhere:
        wanted = caller.tenant if named is None else named
        row = await tenants.find(connection, wanted) if wanted.isprintable() else None
        if row is not None:
            return str(row.id)
    elif named in (None, caller.tenant, caller.tenant_name):
        return caller.tenant
    raise ApiError(404, f"No such tenant: {str(named)[:100]!r}.", code="tenant_not_found", param="tenant_id")


async def listed_tenant(connection: db.Connection, request: web.Request) -> str | None:
    """Return the tenant that a list is of: the query's `tenant_id`, else all that the caller may see."""
    caller, named = request[CALLER], request.query.get("tenant_id")
    return within(caller) if named is None else await tenant_of(connection, caller, named)


def closed(noun: str) -> ApiError:
    """Return the refusal to change what was closed or revoked."""
    return ApiError(409, f"This {noun} has ended and cannot be changed.", code=f"{noun}_ended")
