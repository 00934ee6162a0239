"""Webhook endpoints over HTTP, as OpenAI's `client.webhooks` has them, with fields of our own.

A signing secret is in the answer that makes it and nowhere else; the values of an endpoint's headers are in none.
"""

from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

from aiohttp import web

from gateway_api import reading
from gateway_api.admin.changing import body, change_of, changing
from gateway_api.answers import as_json, page
from gateway_api.state import STATE, TENANT, State
from gateway_api.webhook_request import EndpointChange, EndpointRequest, RotationRequest, read
from shared import ids, signing
from shared.db import engine as db
from shared.db import tenants, webhook_endpoints, webhook_secrets
from shared.db.webhook_endpoints import EndpointFields, EndpointRow
from shared.errors import ApiError
from shared.sealing import Keys

MOST = 100
"""How many endpoints a tenant may have."""

OVERLAP = 86_400
_MASK = "***"


async def create(request: web.Request) -> web.Response:
    """`POST /v1/webhook_endpoints` `{"url", "name", "event_types", ...}`: answers with `signing_secret`, this once."""
    asked, tenant, keys = await read(request, EndpointRequest), request[TENANT], keys_of(request.app[STATE])
    id_, secret = ids.new_id(), signing.new_secret(asked.signing)
    values = {name: getattr(asked, name) for name in EndpointFields.__dataclass_fields__}
    values["headers"] = webhook_endpoints.sealed_headers(keys, tenant, id_, asked.headers)
    async with changing(request) as (connection, made):
        await tenants.get(connection, tenant)  # locked, so that two that are made at once are counted one by one
        if await webhook_endpoints.count(connection, tenant) >= MOST:
            raise ApiError(409, f"A tenant has at most {MOST} webhook endpoints.", code="too_many_webhooks")
        await webhook_endpoints.insert(connection, id_, tenant, EndpointFields(**values), signing=asked.signing)
        await webhook_secrets.insert(connection, keys, tenant, id_, secret)
        row = await _again(connection, tenant, id_)
        made.append(_change("create", None, row))
    return _once(row, secret)


async def list_(request: web.Request) -> web.Response:
    """`GET /v1/webhook_endpoints`: newest first."""
    limit, after = reading.limit(request), request.query.get("after")
    behind = None if after is None else reading.id_of("webhook", after, param="after")
    async with db.transaction(request.app[STATE].engine) as connection:
        rows = await webhook_endpoints.page(connection, request[TENANT], after=behind, limit=limit + 1)
    return page([shown(row) for row in rows], limit=limit)


async def retrieve(request: web.Request) -> web.Response:
    """`GET /v1/webhook_endpoints/{id}`."""
    async with db.transaction(request.app[STATE].engine) as connection:
        return as_json(shown(await endpoint(connection, request)))


async def update(request: web.Request) -> web.Response:
    """`PATCH /v1/webhook_endpoints/{id}`, and OpenAI's `POST /v1/webhook_endpoints/{id}`.

    `enabled: true` begins anew with one that was disabled.
    """
    asked, tenant = await read(request, EndpointChange), request[TENANT]
    changes = asked.given()
    async with changing(request) as (connection, made):
        row = before = await endpoint(connection, request, lock=True)
        if asked.headers:
            keys = keys_of(request.app[STATE])
            changes["headers"] = webhook_endpoints.sealed_headers(keys, tenant, before.id, asked.headers)
        fields = EndpointFields.of(before)
        if (changed := replace(fields, **changes)) != fields:
            await webhook_endpoints.update(connection, tenant, before.id, changed)
            row = await _again(connection, tenant, before.id)
            made.append(_change("update", before, row))
    return as_json(shown(row))


async def delete(request: web.Request) -> web.Response:
    """`DELETE /v1/webhook_endpoints/{id}`: nothing more is sent to it."""
    async with changing(request) as (connection, made):
        row = await endpoint(connection, request, lock=True)
        await webhook_endpoints.delete(connection, row.tenant_id, row.id)
        made.append(_change("delete", row, None))
    return as_json({"id": ids.show("webhook", row.id), "object": "webhook_endpoint.deleted", "deleted": True})


async def rotate_secret(request: web.Request) -> web.Response:
    """`POST /v1/webhook_endpoints/{id}/rotate_secret`: a new secret, this once; the old one may go on for a day."""
    asked, keys = await body(request, RotationRequest, may_be_empty=True), keys_of(request.app[STATE])
    overlap = OVERLAP if asked.keep_old_secret_active_for_24_hours else 0
    async with changing(request) as (connection, made):
        before = await endpoint(connection, request, lock=True)
        secret = signing.new_secret(before.signing)
        await webhook_secrets.rotate(connection, keys, before.tenant_id, before.id, secret, overlap=overlap)
        await webhook_endpoints.touch(connection, before.tenant_id, before.id)
        row = await _again(connection, before.tenant_id, before.id)
        made.append(_change("rotate", before, row))
    return _once(row, secret)


def keys_of(state: State) -> Keys:
    """Return the keys that seal secrets. Raises ApiError 501 where there are none."""
    if state.secrets_keys is None:
        raise ApiError(
            501,
            "This gateway keeps no secrets, so it cannot sign webhooks: its operator must set SLUICE_SECRETS_KEY.",
            type="server_error",
            code="no_secrets_key",
            should_retry=False,
        )
    return state.secrets_keys


async def endpoint(connection: db.Connection, request: web.Request, *, lock: bool = False) -> EndpointRow:
    """Return the endpoint in a path; `lock` it where it is to be changed. Raises ApiError 404."""
    row = await webhook_endpoints.get(connection, request[TENANT], reading.path_id(request, "webhook"), lock=lock)
    if row is None:
        raise reading.not_found("webhook", request.match_info["id"])
    return row


async def _again(connection: db.Connection, tenant: str, id_: UUID) -> EndpointRow:
    row = await webhook_endpoints.get(connection, tenant, id_)
    assert row is not None
    return row


def _once(row: EndpointRow, secret: str) -> web.Response:
    """Return the answer with a new secret; of `v1a` it is the public key, for the private one is the gateway's."""
    public = signing.public_half(secret)
    told = secret if public is None else signing.public_text(public)
    return as_json(shown(row) | {"signing_secret": told}, headers={"Cache-Control": "no-store"})


def shown(row: EndpointRow) -> dict[str, Any]:
    """Return an endpoint as its tenant sees it: times in Unix seconds, as OpenAI has them."""
    return {
        "id": ids.show("webhook", row.id),
        "object": "webhook_endpoint",
        "created_at": int(row.created_at.timestamp()),
        "updated_at": int(row.updated_at.timestamp()),
        "name": row.name,
        "url": row.url,
        "event_types": row.event_types,
        "signing_secret_hint": row.hint,
        "description": row.description,
        "headers": dict.fromkeys(row.headers, _MASK),
        "include_result": row.include_result,
        "ordered": row.ordered,
        "rpm": row.rpm,
        "concurrency": row.concurrency,
        "signing": row.signing,
        "public_key": None if row.public is None else signing.public_text(bytes(row.public)),
        "old_secret_expires_at": _seconds(row.old_secret_expires_at),
        "enabled": row.enabled,
        "disabled_reason": row.disabled_reason,
        "failing_since": _seconds(row.failing_since),
    }


def _seconds(moment: Any) -> int | None:
    return None if moment is None else int(moment.timestamp())


_change = partial(change_of, "webhook", shown)
