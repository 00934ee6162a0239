"""Batches over HTTP: many jobs in one call, their progress, and their results while the batch still runs."""

import asyncio
from contextlib import suppress
from uuid import UUID

import orjson
from aiohttp import web
from pydantic import ValidationError

from gateway_api import admission, reading
from gateway_api.access import Caller
from gateway_api.answers import as_json, page
from gateway_api.state import CALLER, STATE, TENANT, State
from gateway_api.submit import IdempotencyKey, reused
from shared import ids, public
from shared.commit import commit
from shared.db import batches, budgets, idempotency, jobs
from shared.db import engine as db
from shared.db.batches import BatchRow
from shared.db.budgets import NewBudget
from shared.db.idempotency import Reserved
from shared.db.jobs import NewJob
from shared.db.transitions import ended_queued
from shared.errors import ApiError, Fault
from shared.pricing import NANOS
from shared.queue import CANCEL, RedisAway
from shared.schemas import MOST_FAULTS, BatchRequest, faults_of

CHUNK = 1_000


async def create(request: web.Request) -> web.Response:
    """`POST /v1/batches` with the lines inline."""
    state, tenant = request.app[STATE], request[TENANT]
    raw = await reading.body_bytes(request)
    key = reading.idempotency_key(request, raw)
    value = reading.json_object(raw)
    try:
        asked = BatchRequest.model_validate(value)
    except ValidationError as error:
        raise reading.refusal(faults_of(error)) from None
    if len(asked.requests) > state.settings.max_batch_requests:
        raise ApiError(
            413,
            f"A batch may have {state.settings.max_batch_requests} requests; this one has {len(asked.requests)}.",
            code="too_many_tasks",
            param="requests",
        )
    id_ = ids.new_id()
    new = await _lines(asked, state, request[CALLER], id_)
    await state.submitter.check_redis()
    await admission.admit(request, new, key)
    new = await state.funds.cover(new, key, whole=asked.max_cost_usd)
    row, replayed = await db.run(state.engine, lambda connection: _store(connection, tenant, id_, asked, new, key))
    if replayed:
        return as_json(public.batch(row), status=202, headers={"Idempotent-Replayed": "true"})
    await state.submitter.enqueue(new)
    return as_json(public.batch(row), status=202, headers={"Location": f"/v1/batches/{ids.show('batch', id_)}"})


async def _lines(asked: BatchRequest, state: State, caller: Caller, id_: UUID) -> list[NewJob]:
    """Return the jobs of a batch's lines. Raises ApiError with the faults of all lines."""
    new: list[NewJob] = []
    faults: list[Fault] = []
    first_of: dict[str, int] = {}
    for index, line in enumerate(asked.requests):
        prefix = f"requests[{index}]"
        if index % 200 == 199:
            await asyncio.sleep(0)  # others are served meanwhile
        if len(faults) > MOST_FAULTS:
            break
        if asked.endpoint is not None and isinstance(line, dict):
            line = {"url": asked.endpoint, **line}
        if isinstance(line, dict):
            reading.drop_unsupported(line, state.router)
        job = reading.new_job(line, state.router, caller=caller, batch=id_, prefix=prefix)
        if isinstance(job, list):
            faults += job
            continue
        if job.custom_id is not None and (first := first_of.setdefault(job.custom_id, index)) != index:
            faults.append(Fault(f"{prefix}.custom_id", f"is that of requests[{first}] too", "duplicate_custom_id"))
        new.append(job)
    if faults:
        raise reading.refusal(faults)
    return new


async def _store(
    connection: db.Connection,
    tenant: str,
    id_: UUID,
    asked: BatchRequest,
    new: list[NewJob],
    key: IdempotencyKey | None,
) -> tuple[BatchRow, bool]:
    stored = await batches.get(connection, tenant, id_)
    if stored is not None:  # the commit went through, and then the connection was lost
        return stored, False
    if key is not None:
        name = (tenant, key.key)
        holder = (await idempotency.reserve(connection, {name: Reserved(key.request_hash, id_)}))[name]
        if holder.request_hash != key.request_hash:
            raise reused()
        if holder.object_id != id_:
            first = await batches.get(connection, tenant, holder.object_id)
            if first is None:
                raise ApiError(410, "The batch of this Idempotency-Key is no longer kept.", code="batch_not_found")
            return first, True
    if asked.max_cost_usd is not None:
        most = int(asked.max_cost_usd * NANOS)
        own = NewBudget(tenant_id=tenant, limit_nanos=most, period="total", batch_id=id_, thresholds=())
        await budgets.insert(connection, own)
    row = await batches.insert(
        connection,
        id_,
        tenant,
        endpoint=asked.endpoint or new[0].url,
        completion_window=asked.completion_window,
        total=len(new),
        metadata=asked.metadata,
    )
    for start in range(0, len(new), CHUNK):
        await jobs.insert(connection, new[start : start + CHUNK])
    return row, False


async def retrieve(request: web.Request) -> web.Response:
    """`GET /v1/batches/{id}`."""
    return as_json(public.batch(await _batch(request)))


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
    state, tenant = request.app[STATE], request[TENANT]
    row = await _batch(request)
    while True:  # jobs are claimed, and given back, while we look
        async with db.transaction(state.engine) as connection:
            running = await batches.ask_cancel(connection, tenant, row.id)
            queued = await batches.queued(connection, tenant, row.id, limit=500)
        if running:
            with suppress(*RedisAway):  # their workers find the marks when they renew their leases
                await state.queue.announce(CANCEL, running)
        if queued:
            await commit(state.engine, state.queue, [ended_queued(job, "cancelled") for job in queued])
        elif not running:
            break
    return as_json(public.batch(await _batch(request)))


async def results(request: web.Request) -> web.Response:
    """`GET /v1/batches/{id}/results?after=CURSOR&limit=N`: output lines as NDJSON, in the order the jobs ended."""
    state, tenant = request.app[STATE], request[TENANT]
    limit, after = reading.limit(request, default=100, most=1_000), request.query.get("after", "0")
    if not after.isascii() or not after.isdigit() or len(after) > 18:
        raise ApiError(400, "after must be the cursor of an earlier line.", param="after")
    row = await _batch(request)
    async with db.transaction(state.engine) as connection:
        ended = await batches.results(connection, tenant, row.id, after=int(after), limit=limit)
    lines = b"".join(orjson.dumps(public.result_line(job), option=orjson.OPT_APPEND_NEWLINE) for job in ended)
    return web.Response(body=lines, content_type="application/x-ndjson")


async def _batch(request: web.Request) -> BatchRow:
    id_ = reading.path_id(request, "batch")
    async with db.transaction(request.app[STATE].engine) as connection:
        row = await batches.get(connection, request[TENANT], id_)
    if row is None:
        raise reading.not_found("batch", request.match_info["id"])
    return row
