"""A batch's events as they happen: its progress, each result, its end."""

import asyncio

from aiohttp import web

from gateway_api import batches, reading
from gateway_api.sse import EventStream
from gateway_api.state import STATE, TENANT
from shared import public
from shared.db import batch_lines
from shared.db import batches as stored
from shared.db import engine as db

PAGE = 200
LOOK_SECONDS, MOST_SECONDS = 0.5, 2.0


async def events(request: web.Request) -> web.StreamResponse:
    """`GET /v1/batches/{id}/events`.

    | event | data |
    |---|---|
    | `result` | an output line, in the order they ended; its id is the line's cursor |
    | `batch.progress` | the batch, whenever it has changed |
    | the end: `batch.completed`, `batch.failed`, `batch.expired`, `batch.cancelled` | the batch |

    Sent back as `Last-Event-ID`, the results go on behind that line.
    """
    state, tenant, id_ = request.app[STATE], request[TENANT], reading.path_id(request, "batch")
    after = batches.cursor(request.headers.get("Last-Event-ID") or "0", "Last-Event-ID")
    await batches.of(request)
    out, told, idle = EventStream(request), None, 0
    while True:
        async with db.transaction(state.engine) as connection:
            row = await stored.get(connection, tenant, id_)  # before its lines: those of an end are all there
            ended = await batch_lines.ended(connection, tenant, id_, after=after, limit=PAGE)
        if row is None:
            return await out.end()
        for job in ended:
            after = job.batch_sequence
            await out.send(public.result_line(job), event="result", id=str(after))
        shown = public.batch(row)
        if row.finished_at is not None and not ended:
            await out.send(shown, event=f"batch.{row.status}")
            return await out.end()
        if shown != told:
            told = shown
            await out.send(shown, event="batch.progress")
        elif not ended:
            await out.idle()
        idle = 0 if ended else idle + 1
        if idle:  # many may follow for long: who has waited for long looks less often
            await asyncio.sleep(min(LOOK_SECONDS * idle, MOST_SECONDS))
