"""Submitting a batch: its own row, its budget and, where its lines are inline, its jobs, in one transaction.

The lines of a file are read by `validation`, after the answer.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from gateway_api import admission, reading
from gateway_api.batch_lines import Lines
from gateway_api.state import CALLER, STATE, State
from gateway_api.submit import IdempotencyKey, reused
from gateway_api.validation import submitter
from shared import ids
from shared.batch_request import BatchRequest
from shared.db import batches, budgets, dependencies, files, idempotency, jobs
from shared.db import engine as db
from shared.db.batches import BatchRow, NewBatch
from shared.db.budgets import NewBudget
from shared.db.dependencies import Dependency
from shared.db.idempotency import Reserved
from shared.db.jobs import NewJob
from shared.errors import ApiError, Fault
from shared.pricing import NANOS
from shared.queue.entries import Entry
from shared.schemas import DEFAULT_ROUTE, MOST_FAULTS

CHUNK = 1_000
BYTES_PER_TOKEN = 4
_FILE = "input_file_id"


async def submit(request: web.Request, asked: BatchRequest, key: IdempotencyKey | None) -> tuple[BatchRow, bool]:
    """Store what was asked for; return the batch, and whether an earlier request with the key made it.

    Raises ApiError with the faults of all inline lines; those of a file end the batch later.
    """
    state, caller, now = request.app[STATE], request[CALLER], datetime.now(UTC)
    files_stay = asked.output_expires_after
    batch = NewBatch(
        id=ids.new_id(),
        tenant_id=caller.tenant,
        endpoint=asked.endpoint or DEFAULT_ROUTE,
        completion_window=asked.completion_window,
        expires_at=asked.expires_at(now),
        metadata=asked.metadata,
        webhook=asked.webhook.model_dump() if asked.webhook else None,
        defaults=asked.defaults.stored(),
        files_expire_at=None if files_stay is None else now + timedelta(seconds=files_stay.seconds),
    )
    await state.submitter.check_redis()
    if asked.requests is None:
        batch = await _of_file(request, asked, batch, key)
        new: list[NewJob] = []
        needs: list[Dependency] = []
    else:
        new, needs = await _read(state, asked, batch, lines=asked.requests, request=request)
        batch = replace(batch, total=len(new), endpoint=asked.endpoint or new[0].url)
        await admission.admit(request, new, key)
        new = await state.funds.cover(new, key, whole=asked.max_cost_usd)
    row, replayed = await db.run(
        state.engine, lambda connection: _store(connection, batch, new, needs, most=asked.max_cost_usd, key=key)
    )
    if not replayed:
        await state.submitter.enqueue([Entry.of(job) for job in new if job.waits_for is None])
        if asked.requests is None:
            state.unvalidated.set()
    return row, replayed


async def _of_file(request: web.Request, asked: BatchRequest, batch: NewBatch, key: IdempotencyKey | None) -> NewBatch:
    """Return a batch whose lines are in a file. Raises ApiError 400 where it cannot have any, 429."""
    state, caller = request.app[STATE], request[CALLER]
    id_ = reading.id_of("file", str(asked.input_file_id), param=_FILE)
    async with db.transaction(state.engine) as connection:
        file = await files.get(connection, caller.tenant, id_)
    if file is None:
        raise _no_file()
    if file.purpose != "batch":
        said = f"The file's purpose must be batch; it is {file.purpose}."
        raise ApiError(400, said, code="invalid_file_purpose", param=_FILE)
    await admission.admit_unread(request, file.lines, file.bytes // BYTES_PER_TOKEN, key)
    strict = asked.endpoint is not None
    return replace(batch, status="validating", input_file_id=id_, submitter=submitter(caller, strict=strict))


def _no_file() -> ApiError:
    return ApiError(400, "There is no such file.", code="file_not_found", param=_FILE)


async def _read(
    state: State, asked: BatchRequest, batch: NewBatch, *, lines: Sequence[Any], request: web.Request
) -> tuple[list[NewJob], list[Dependency]]:
    """Return the jobs of a batch's inline lines, and what waits for what. Raises ApiError with all their faults."""
    most = state.settings.max_batch_requests
    if len(lines) > most:
        said = f"A batch may have {most} requests; this one has {len(lines)}."
        raise ApiError(413, said, code="too_many_tasks", param="requests")
    reader = Lines(
        batch.id,
        state.router,
        request[CALLER],
        defaults=batch.defaults,
        endpoint=asked.endpoint,
        strict=False,
        expires_at=batch.expires_at,
        most_bytes=2 * state.settings.max_body_bytes,
    )
    new: list[NewJob] = []
    faults: list[Fault] = []
    for index, line in enumerate(lines):
        if index % 200 == 199:
            await asyncio.sleep(0)  # others are served meanwhile
        if len(faults) > MOST_FAULTS:
            break
        job = reader.read(line, f"requests[{index}]")
        if isinstance(job, list):
            faults += job
        else:
            new.append(job)
    if faults:
        raise reading.refusal(faults)
    needs, faults = await asyncio.to_thread(reader.dependencies)
    if faults:
        raise reading.refusal(faults)
    return new, needs


async def _store(
    connection: db.Connection,
    batch: NewBatch,
    new: Sequence[NewJob],
    needs: Sequence[Dependency],
    *,
    most: Any,
    key: IdempotencyKey | None,
) -> tuple[BatchRow, bool]:
    tenant = batch.tenant_id
    stored = await batches.get(connection, tenant, batch.id)
    if stored is not None:  # the commit went through, and then the connection was lost
        return stored, False
    if key is not None:
        name = (tenant, key.key)
        holder = (await idempotency.reserve(connection, {name: Reserved(key.request_hash, batch.id)}))[name]
        if holder.request_hash != key.request_hash:
            raise reused()
        if holder.object_id != batch.id:
            first = await batches.get(connection, tenant, holder.object_id)
            if first is None:
                raise ApiError(410, "The batch of this Idempotency-Key is no longer kept.", code="batch_not_found")
            return first, True
    if batch.input_file_id is not None and not await files.get(connection, tenant, batch.input_file_id, keep=True):
        raise _no_file()
    if most is not None:
        limit = int(most * NANOS)
        own = NewBudget(tenant_id=tenant, limit_nanos=limit, period="total", batch_id=batch.id, thresholds=())
        await budgets.insert(connection, own)
    row = await batches.insert(connection, batch)
    for start in range(0, len(new), CHUNK):
        await jobs.insert(connection, new[start : start + CHUNK])
    if needs:
        await dependencies.insert(connection, needs)
    return row, False
