"""Failed and expired jobs, run again: one, those of a filter, those of a batch."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from aiohttp import web

from gateway_api import admission, jobs, reading
from gateway_api.answers import as_json
from gateway_api.state import CALLER, STATE, TENANT, State
from shared import public
from shared.db import batches
from shared.db import engine as db
from shared.db import jobs as stored
from shared.errors import ApiError, Fault, Unavailable
from shared.queue import LET_GO_WAKE, RedisAway
from shared.queue.entries import Entry

MOST_RESTARTED = 10_000


async def retry(request: web.Request) -> web.Response:
    """`POST /v1/jobs/{id}/retry`: runs a failed or expired job again."""
    state, tenant, id_ = request.app[STATE], request[TENANT], reading.path_id(request, "job")
    async with db.transaction(state.engine) as connection:
        row = await stored.get(connection, tenant, id_)
    if row is None:
        raise reading.not_found("job", request.match_info["id"])
    if not request[CALLER].may_use(row.model):
        raise reading.refusal([Fault("", f"this key may not use the model {row.model!r}", "model_not_allowed")])
    await admission.admit_again(request, 1)
    restarted = await _restart(state, tenant, [id_])
    row = await jobs.ended(state, tenant, id_, 0) or row
    if not restarted:
        raise ApiError(409, f"Only a failed or expired job can run again; this one is {row.status}.", code="not_failed")
    return jobs.answer(row, {})


async def retry_many(request: web.Request) -> web.Response:
    """`POST /v1/jobs/retry` with a filter (`status`, `model`, `batch_id`, `metadata.k`, `created_after/before`)."""
    state, tenant = request.app[STATE], request[TENANT]
    asked = reading.json_object(await reading.body_bytes(request))
    wanted = replace(jobs.filter_of(asked), models=request[CALLER].models)
    async with db.transaction(state.engine) as connection:
        found = await stored.restartable(connection, tenant, wanted, limit=MOST_RESTARTED)
    restarted = 0
    if found:
        await admission.admit_again(request, len(found))
        restarted = await _restart(state, tenant, found)  # together, so that who waited for one of them waits again
    return as_json({"object": "job.retry", "retried": restarted, "has_more": len(found) == MOST_RESTARTED}, status=202)


async def retry_batch(request: web.Request) -> web.Response:
    """`POST /v1/batches/{id}/retry`: runs all failed and expired jobs of a batch again.

    They are restarted together, as above.
    """
    state, tenant, id_ = request.app[STATE], request[TENANT], reading.path_id(request, "batch")
    async with db.transaction(state.engine) as connection:
        row = await batches.get(connection, tenant, id_)
        failed = await batches.failed(connection, tenant, id_, models=request[CALLER].models)
    if row is None:
        raise reading.not_found("batch", request.match_info["id"])
    if failed:
        await admission.admit_again(request, len(failed))
        await _restart(state, tenant, failed)
    async with db.transaction(state.engine) as connection:
        row = await batches.get(connection, tenant, id_) or row
    return as_json(public.batch(row), status=202)


async def _restart(state: State, tenant: str, wanted: Sequence[UUID]) -> int:
    """Restart jobs; return how many could be."""
    rows = await db.run(state.engine, lambda connection: stored.restart(connection, tenant, wanted))
    try:
        await state.queue.enqueue([Entry.of(row) for row in rows if row.waits_for is None])
        if any(row.waits_for == 0 for row in rows):
            await state.queue.wake(LET_GO_WAKE)
    except RedisAway as error:
        raise Unavailable("the jobs will run again as soon as the queue is available") from error
    return len(rows)
