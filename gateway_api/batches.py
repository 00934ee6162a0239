"""Batches over HTTP: submitted, looked at, listed, cancelled; their results page by page while they run."""

from typing import Any

import orjson
from aiohttp import web
from pydantic import ValidationError

from gateway_api import reading
from gateway_api.answers import as_json, page
from gateway_api.batch_submit import submit
from gateway_api.state import CALLER, STATE, TENANT
from gateway_api.submit import IdempotencyKey
from gateway_api.webhook_address import webhook_faults
from shared import ids, public
from shared.batch_request import BatchRequest
from shared.commit import stop_batch
from shared.db import batch_lines, batches
from shared.db import engine as db
from shared.db.batches import BatchRow
from shared.errors import ApiError
from shared.schemas import faults_of


async def create(request: web.Request) -> web.Response:
    """`POST /v1/batches`, with the lines inline or in a file; those of a file are validated after the answer."""
    raw = await reading.body_bytes(request)
    key, value = reading.idempotency_key(request, raw), reading.json_object(raw)
    try:
        row, replayed = await submit(request, _asked(request, value), key)
    except ApiError:
        found = await _known(request, key)  # what was accepted once may be refused now: its file is gone, it is late
        if found is None:
            raise
        row, replayed = found, True
    headers = {"Location": f"/v1/batches/{ids.show('batch', row.id)}"}
    return as_json(public.batch(row), status=202, headers={"Idempotent-Replayed": "true"} if replayed else headers)


def _asked(request: web.Request, value: dict[str, Any]) -> BatchRequest:
    try:
        asked = BatchRequest.model_validate(value)
    except ValidationError as error:
        raise reading.refusal(faults_of(error)) from None
    if faults := webhook_faults(value.get("webhook"), request.app[STATE].config, request[CALLER]):
        raise reading.refusal(faults)
    return asked


async def _known(request: web.Request, key: IdempotencyKey | None) -> BatchRow | None:
    """Return the batch that an earlier request with a key made."""
    state, tenant = request.app[STATE], request[TENANT]
    known = None if key is None else await state.submitter.known(tenant, key)
    if known is None:
        return None
    async with db.transaction(state.engine) as connection:
        return await batches.get(connection, tenant, known.id)


async def retrieve(request: web.Request) -> web.Response:
    """`GET /v1/batches/{id}`."""
    return as_json(public.batch(await of(request)))


async def list_(request: web.Request) -> web.Response:
    """`GET /v1/batches`: newest first."""
    state, tenant = request.app[STATE], request[TENANT]
    limit, after = reading.limit(request), request.query.get("after")
    async with db.transaction(state.engine) as connection:
        rows = await batches.page(
            connection,
            tenant,
            after=None if after is None else reading.id_of("batch", after, param="after"),
            limit=limit + 1,
        )
    return page([public.batch(row) for row in rows], limit=limit)


async def cancel(request: web.Request) -> web.Response:
    """`POST /v1/batches/{id}/cancel`: ends what is queued, stops what is in progress."""
    state = request.app[STATE]
    await stop_batch(state.engine, state.queue, request[TENANT], (await of(request)).id)
    return as_json(public.batch(await of(request)))


async def results(request: web.Request) -> web.Response:
    """`GET /v1/batches/{id}/results?after=CURSOR&limit=N`: output lines as NDJSON, in the order the jobs ended.

    Where answers are large there may be fewer than `limit` though there are more; none says that no more have ended.
    """
    state, tenant = request.app[STATE], request[TENANT]
    limit, after = reading.limit(request, default=100, most=1_000), cursor(request.query.get("after", "0"), "after")
    row = await of(request)
    async with db.transaction(state.engine) as connection:
        ended = await batch_lines.ended(connection, tenant, row.id, after=after, limit=limit)
    lines = b"".join(orjson.dumps(public.result_line(job), option=orjson.OPT_APPEND_NEWLINE) for job in ended)
    return web.Response(body=lines, content_type="application/x-ndjson")


def cursor(text: str, param: str) -> int:
    """Return the cursor of a line. Raises ApiError 400."""
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ApiError(400, f"{param} must be the cursor of an earlier line.", param=param)
    return int(text)


async def of(request: web.Request) -> BatchRow:
    """Return the batch in a request's path. Raises ApiError 404."""
    id_ = reading.path_id(request, "batch")
    async with db.transaction(request.app[STATE].engine) as connection:
        row = await batches.get(connection, request[TENANT], id_)
    if row is None:
        raise reading.not_found("batch", request.match_info["id"])
    return row
