"""Anthropic's batches of Messages: the batches of `/v1/batches` whose endpoint is `/v1/messages`, in its shapes."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway_api import reading
from gateway_api.answers import as_anthropic, as_json
from gateway_api.batch_submit import submit
from gateway_api.messages import with_betas
from gateway_api.state import STATE, TENANT, State, request_headers
from gateway_api.synchronous import failure
from shared import ids
from shared.batch_request import BatchRequest
from shared.commit import stop_batch
from shared.db import batch_lines, batches
from shared.db import engine as db
from shared.db.batches import BatchRow
from shared.errors import ApiError
from shared.lifecycle import Status
from shared.public import moment
from shared.schemas import faults_of
from shared.serving import MESSAGES

WINDOW = "24h"
PAGE = 500
LARGEST_PAGE = 1_000


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    custom_id: Annotated[str, Field(min_length=1, max_length=512)]
    params: dict[str, Any]


class _Requests(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    requests: Annotated[list[_Request], Field(min_length=1)]


async def create(request: web.Request) -> web.Response:
    """`POST /v1/messages/batches`."""
    raw = await reading.body_bytes(request)
    key, value = reading.idempotency_key(request, raw), reading.json_object(raw)
    try:
        asked = _Requests.model_validate(value)
    except ValidationError as error:
        raise reading.refusal(faults_of(error)) from None
    lines = [
        {"custom_id": one.custom_id, "url": MESSAGES, "body": with_betas(request, one.params)} for one in asked.requests
    ]
    try:
        row, _ = await submit(request, BatchRequest(requests=lines, endpoint=MESSAGES, completion_window=WINDOW), key)
    except ApiError as error:
        if not error.faults:
            raise
        named = [replace(one, param=one.param.replace("].body", "].params", 1)) for one in error.faults]
        raise reading.refusal(named) from None
    return as_json(_shown(row))


async def retrieve(request: web.Request) -> web.Response:
    """`GET /v1/messages/batches/{id}`."""
    return as_json(_shown(await _of(request)))


async def list_(request: web.Request) -> web.Response:
    """`GET /v1/messages/batches`: newest first; `after_id` goes on to older ones, `before_id` back to newer ones."""
    limit = reading.limit(request, most=LARGEST_PAGE)
    after, before = (
        reading.id_of("msgbatch", text, param=name) if (text := request.query.get(name)) is not None else None
        for name in ("after_id", "before_id")
    )
    async with db.transaction(request.app[STATE].engine) as connection:
        rows = await batches.page(
            connection, request[TENANT], after=after, before=before, limit=limit + 1, endpoint=MESSAGES
        )
    held = rows[:limit] if before is None else rows[-limit:]
    shown = [_shown(row) for row in held]
    first, last = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
    return as_json({"data": shown, "has_more": len(rows) > limit, "first_id": first, "last_id": last})


async def cancel(request: web.Request) -> web.Response:
    """`POST /v1/messages/batches/{id}/cancel`."""
    state, row = request.app[STATE], await _of(request)
    await stop_batch(state.engine, state.queue, row.tenant_id, row.id)
    return as_json(_shown(await _of(request)))


async def delete(request: web.Request) -> web.Response:
    """`DELETE /v1/messages/batches/{id}`, of one that has ended."""
    row = await _of(request)
    _check_ended(row, "Cancel it first.")
    async with db.transaction(request.app[STATE].engine) as connection:
        await batches.delete(connection, row.tenant_id, row.id)
    return as_json({"id": ids.show("msgbatch", row.id), "type": "message_batch_deleted"})


async def results(request: web.Request) -> web.StreamResponse:
    """`GET /v1/messages/batches/{id}/results`: a line for each request, in the order they ended."""
    row = await _of(request)
    _check_ended(row, "Its results are there when it has.")
    response = web.StreamResponse(headers={"Content-Type": "application/x-jsonl"} | request_headers(request))
    pieces = _pieces(request.app[STATE], row)
    first = await anext(pieces, b"")  # what goes wrong by now is still an error's answer
    await response.prepare(request)
    try:
        await response.write(first)
        async for piece in pieces:
            await response.write(piece)
        await response.write_eof()
    except ApiError:
        if request.transport is not None:  # nothing else tells the reader that there is more
            request.transport.abort()
    return response


async def _pieces(state: State, row: BatchRow) -> AsyncIterator[bytes]:
    after = 0
    while True:
        async with db.transaction(state.engine) as connection:
            ended = await batch_lines.ended(connection, row.tenant_id, row.id, after=after, limit=PAGE)
        if not ended:
            return
        after = ended[-1].batch_sequence
        yield b"".join(orjson.dumps(_line(job), option=orjson.OPT_APPEND_NEWLINE) for job in ended)


def _line(job: Any) -> dict[str, Any]:
    result: dict[str, Any]
    match job.status:
        case Status.COMPLETED:
            result = {"type": "succeeded", "message": orjson.Fragment(job.result)}
        case Status.CANCELLED:
            result = {"type": "canceled"}
        case Status.EXPIRED:
            result = {"type": "expired"}
        case _:
            error = {"type": "error", "error": as_anthropic(failure(job)), "request_id": None}
            result = {"type": "errored", "error": error}
    return {"custom_id": job.custom_id or ids.show("job", job.id), "result": result}


def _shown(row: BatchRow) -> dict[str, Any]:
    """Return a batch in Anthropic's shape; its counts are those of now, while it runs too."""
    shown, ended = ids.show("msgbatch", row.id), row.finished_at is not None
    counts = {"succeeded": row.completed, "errored": row.failed, "canceled": row.cancelled, "expired": row.expired}
    running = "canceling" if row.status == "cancelling" else "in_progress"
    return {
        "id": shown,
        "type": "message_batch",
        "processing_status": "ended" if ended else running,
        "request_counts": {"processing": row.total - sum(counts.values())} | counts,
        "created_at": moment(row.created_at),
        "ended_at": moment(row.finished_at),
        "expires_at": moment(row.expires_at),
        "cancel_initiated_at": moment(row.cancelling_at),
        "archived_at": None,
        "results_url": f"{MESSAGES}/batches/{shown}/results" if ended else None,
    }


def _check_ended(row: BatchRow, otherwise: str) -> None:
    """Raise ApiError 400 for a batch that goes on."""
    if row.finished_at is None:
        raise ApiError(400, f"The batch has not ended. {otherwise}", code="batch_not_ended")


async def _of(request: web.Request) -> BatchRow:
    """Return the batch in a request's path. Raises ApiError 404."""
    id_ = reading.path_id(request, "msgbatch")
    async with db.transaction(request.app[STATE].engine) as connection:
        row = await batches.get(connection, request[TENANT], id_)
    if row is None or row.endpoint != MESSAGES:
        raise reading.not_found("msgbatch", request.match_info["id"])
    return row
