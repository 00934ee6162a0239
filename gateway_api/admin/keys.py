"""Keys over HTTP. A secret is in the answer that makes it and nowhere else; a revoked key is kept as a row.

The keys of owners are touched by owners and by the bootstrap key only.
"""

import hashlib
import secrets
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Self

from aiohttp import web
from pydantic import AfterValidator, Field, model_validator

from gateway_api import reading
from gateway_api.access import OF_ROLE, Caller, Role, Scope
from gateway_api.admin.changing import Closed, body, change_of, changing, closed, listed_tenant, tenant_of, within
from gateway_api.admin.teams import joined
from gateway_api.admin.tenants import Name
from gateway_api.answers import as_json, page
from gateway_api.state import CALLER, STATE
from shared import ids
from shared.db import api_keys
from shared.db import engine as db
from shared.db.api_keys import KeyFields, KeyRow
from shared.errors import ApiError
from shared.public import moment
from shared.schemas import Moment

BEGINNING = "sk-sl-"
SHOWN = len(BEGINNING) + 8
"""How much of a key is its visible prefix; what is left of it is beyond guessing."""

USUAL_SCOPES: tuple[Scope, ...] = ("submit", "read")
USUAL_OVERLAP = 3_600
LONGEST_OVERLAP = 30 * 86_400


def _to_come(moment: datetime) -> datetime:
    if moment <= datetime.now(UTC):
        raise ValueError("is in the past")
    return moment


Limit = Annotated[int, Field(strict=True, gt=0, le=10**12)] | None


class Limits(Closed):
    """What a key may use: requests and tokens a minute, jobs being run, jobs waiting."""

    rpm: Limit = None
    tpm: Limit = None
    in_flight: Limit = None
    queued: Limit = None


class _Fields(Closed):
    team_id: str | None = None
    role: Role | None = None
    scopes: Annotated[list[Scope], Field(min_length=1)] | None = None
    models: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=256)]] | None, Field(min_length=1, max_length=1_000)
    ] = None
    limits: Limits | None = None
    expires_at: Annotated[Moment, AfterValidator(_to_come)] | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if self.role is not None and self.scopes is not None:
            raise ValueError("a key has a role or scopes, not both")
        return self


class KeyRequest(_Fields):
    """`POST /v1/admin/keys`. Without role and scopes a key may submit and read."""

    name: Name
    tenant_id: str | None = None


class KeyChange(_Fields):
    """`PATCH /v1/admin/keys/{id}`: what is absent stays, null takes away."""

    name: Name = ""


class RotationRequest(Closed):
    """`POST /v1/admin/keys/{id}/rotate`: for how long the old secret works beside the new one."""

    overlap_seconds: Annotated[int, Field(strict=True, ge=0, le=LONGEST_OVERLAP)] = USUAL_OVERLAP


async def create(request: web.Request) -> web.Response:
    """`POST /v1/admin/keys`: answers with the key itself, this once."""
    asked, caller = await body(request, KeyRequest), request[CALLER]
    _check_owners(caller, asked.role)
    secret = _secret()
    async with changing(request) as (connection, made):
        tenant = await tenant_of(connection, caller, asked.tenant_id)
        fields = KeyFields(
            asked.name,
            await joined(connection, tenant, asked.team_id),
            asked.role,
            _scopes(asked) or USUAL_SCOPES,
            asked.models,
            _limits(asked),
            asked.expires_at,
        )
        row = await api_keys.insert(
            connection, ids.new_id(), tenant, fields, prefix=secret[:SHOWN], hash_=_hash(secret)
        )
        made.append(_change("create", None, row))
    return _once(row, secret)


async def list_(request: web.Request) -> web.Response:
    """`GET /v1/admin/keys`: newest first, with the revoked ones."""
    limit, after = reading.limit(request), request.query.get("after")
    behind = None if after is None else reading.id_of("key", after, param="after")
    async with db.transaction(request.app[STATE].engine) as connection:
        rows = await api_keys.page(connection, await listed_tenant(connection, request), after=behind, limit=limit + 1)
    return page([shown(row) for row in rows], limit=limit)


async def retrieve(request: web.Request) -> web.Response:
    """`GET /v1/admin/keys/{id}`."""
    async with db.transaction(request.app[STATE].engine) as connection:
        return as_json(shown(await _key(connection, request)))


async def update(request: web.Request) -> web.Response:
    """`PATCH /v1/admin/keys/{id}`: name, team, role or scopes, models, limits, expiry."""
    asked, caller = await body(request, KeyChange), request[CALLER]
    given = asked.model_fields_set
    async with changing(request) as (connection, made):
        before = await _key(connection, request)
        _check_owners(caller, before.role, asked.role)
        if before.revoked_at is not None:
            raise closed("key")
        fields = KeyFields.of(before)
        changes: dict[str, Any] = {name: getattr(asked, name) for name in ("name", "models", "expires_at")}
        changes["team_id"] = await joined(connection, before.tenant_id, asked.team_id)
        changes["limits"] = _limits(asked)
        fields = replace(fields, **{name: value for name, value in changes.items() if name in given})
        if scopes := _scopes(asked):
            fields = replace(fields, role=asked.role, scopes=scopes)
        row = await api_keys.update(connection, before.tenant_id, before.id, fields)
        made.append(_change("update", before, row))
    return as_json(shown(row))


async def rotate(request: web.Request) -> web.Response:
    """`POST /v1/admin/keys/{id}/rotate`: a new secret; the old one works until `overlap_seconds` have passed."""
    asked, secret = await body(request, RotationRequest, may_be_empty=True), _secret()
    async with changing(request) as (connection, made):
        before = await _key(connection, request)
        _check_owners(request[CALLER], before.role)
        if before.revoked_at is not None:
            raise closed("key")
        row = await api_keys.rotate(
            connection,
            before.tenant_id,
            before.id,
            prefix=secret[:SHOWN],
            hash_=_hash(secret),
            overlap=asked.overlap_seconds,
        )
        made.append(_change("rotate", before, row))
    return _once(row, secret)


async def delete(request: web.Request) -> web.Response:
    """`DELETE /v1/admin/keys/{id}`: revokes it, everywhere within a second."""
    async with changing(request) as (connection, made):
        row = before = await _key(connection, request)
        _check_owners(request[CALLER], before.role)
        if before.revoked_at is None:
            row = await api_keys.revoke(connection, before.tenant_id, before.id)
            made.append(_change("revoke", before, row))
    return as_json(shown(row) | {"deleted": True})


def _secret() -> str:
    return BEGINNING + secrets.token_urlsafe(32)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _scopes(asked: _Fields) -> tuple[Scope, ...]:
    return OF_ROLE[asked.role] if asked.role is not None else tuple(dict.fromkeys(asked.scopes or ()))


def _limits(asked: _Fields) -> dict[str, int]:
    return asked.limits.model_dump(exclude_none=True) if asked.limits is not None else {}


def _check_owners(caller: Caller, *roles: str | None) -> None:
    if "owner" in roles and not caller.owns:
        raise ApiError(
            403, "Only an owner may touch the keys of owners.", type="permission_error", code="owner_required"
        )


async def _key(connection: db.Connection, request: web.Request) -> KeyRow:
    row = await api_keys.get(connection, within(request[CALLER]), reading.path_id(request, "key"))
    if row is None:
        raise reading.not_found("key", request.match_info["id"])
    return row


def _once(row: KeyRow, secret: str) -> web.Response:
    return as_json(shown(row) | {"key": secret}, headers={"Cache-Control": "no-store"})


def shown(row: KeyRow) -> dict[str, Any]:
    """Return a key as callers see it ever after: without its secret."""
    return {
        "id": ids.show("key", row.id),
        "object": "key",
        "tenant_id": row.tenant_id,
        "team_id": ids.show("team", row.team_id) if row.team_id else None,
        "name": row.name,
        "prefix": row.prefix,
        "role": row.role,
        "scopes": row.scopes,
        "models": row.models,
        "limits": row.limits,
        "created_at": moment(row.created_at),
        "expires_at": moment(row.expires_at),
        "revoked_at": moment(row.revoked_at),
    }


_change = partial(change_of, "key", shown)
