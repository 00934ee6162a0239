"""Files over HTTP, as OpenAI's: uploaded and downloaded in pieces, so that their size is no matter of memory.

The results of a batch are files too, which are not stored: they are read from its jobs.
"""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import quote
from uuid import UUID

import structlog
from aiohttp import web

from gateway_api import batch_output, reading, uploading
from gateway_api.answers import as_json
from gateway_api.answers import page as page_of
from gateway_api.state import REQUEST_ID, STATE, TENANT, State
from shared import ids, public
from shared.db import engine as db
from shared.db import files
from shared.db.files import BATCH, FileRow
from shared.errors import ApiError
from shared.storage import Storage
from shared.storage.parts import Missing

log = structlog.get_logger(__name__)

LARGEST_PAGE = 1_000
SEND_SECONDS = 120
"""How long a reader may take for one piece."""


async def create(request: web.Request) -> web.Response:
    """`POST /v1/files`: what fails, or is given up, leaves nothing behind."""
    state, tenant, id_ = request.app[STATE], request[TENANT], ids.new_id()
    storage, begun = state.storage.chosen, False

    async def keep(pieces: AsyncIterator[bytes]) -> None:
        nonlocal begun
        begun = True
        async with db.transaction(state.engine) as connection:
            await files.insert(connection, id_, tenant, storage=storage.name)
        await storage.write(id_, pieces)

    try:
        upload = await uploading.read(request, state.settings.max_file_bytes, keep)
        row = await db.run(state.engine, lambda connection: _finish(connection, tenant, id_, upload, state))
    except BaseException:
        if begun:
            await _remove(state, storage, id_)
        raise
    return as_json(public.file(row))


async def _finish(connection: db.Connection, tenant: str, id_: UUID, upload: uploading.Upload, state: State) -> FileRow:
    row = await files.finish(
        connection,
        tenant,
        id_,
        filename=upload.filename or "",
        purpose=upload.fields["purpose"],
        bytes_=upload.bytes,
        lines=upload.lines,
        expires_after=upload.expires_after or state.config.files.expires_after,
    )
    if row is None:
        raise ApiError(408, "The upload took too long.")
    return row


async def list_(request: web.Request) -> web.Response:
    """`GET /v1/files`: newest first, unless `order` is `asc`."""
    state, tenant, query = request.app[STATE], request[TENANT], request.query
    limit = min(reading.limit(request, default=10_000, most=10_000), LARGEST_PAGE)
    after, purpose, order = query.get("after"), query.get("purpose"), query.get("order", "desc")
    if purpose is not None and not purpose.isprintable():
        raise ApiError(400, "purpose is none that a file has.", param="purpose")
    if order not in ("asc", "desc"):
        raise ApiError(400, "order must be asc or desc.", param="order")
    async with db.transaction(state.engine) as connection:
        rows = await files.page(
            connection,
            tenant,
            purpose=purpose,
            after=None if after is None else reading.id_of("file", after, param="after"),
            ascending=order == "asc",
            limit=limit + 1,
        )
    return page_of([public.file(row) for row in rows], limit=limit)


async def retrieve(request: web.Request) -> web.Response:
    """`GET /v1/files/{id}`; that of a batch's results says how many bytes they are now."""
    state, tenant, row = request.app[STATE], request[TENANT], await _file(request)
    if row.storage != BATCH:
        return as_json(public.file(row))
    async with db.transaction(state.engine) as connection:
        size = await batch_output.size(connection, tenant, row.batch_id, errors=row.holds == "errors")
    return as_json(public.file(row, size=size))


async def delete(request: web.Request) -> web.Response:
    """`DELETE /v1/files/{id}`: gone at once; its content as soon as that can be."""
    state, tenant, id_ = request.app[STATE], request[TENANT], reading.path_id(request, "file")
    async with db.transaction(state.engine) as connection:
        row = await files.delete(connection, tenant, id_)
    match row:
        case None:
            raise reading.not_found("file", request.match_info["id"])
        case "in use":
            raise ApiError(409, "A batch that is made of this file is being validated.", code="file_in_use")
        case _ if row.storage in state.storage.names:
            await _remove(state, state.storage.of(row.storage), id_)
    return as_json({"id": ids.show("file", id_), "object": "file", "deleted": True})


async def content(request: web.Request) -> web.StreamResponse:
    """`GET /v1/files/{id}/content`; `?order=input` for a batch's results in the order of its requests."""
    state, tenant, row = request.app[STATE], request[TENANT], await _file(request)
    order = request.query.get("order")
    if order not in (None, "input") or (order and row.storage != BATCH):
        raise ApiError(400, "order may be `input`, of the files of a batch's results.", param="order")
    if row.storage == BATCH:
        errors, in_order = row.holds == "errors", order is not None
        pieces = batch_output.pieces(state, tenant, row.batch_id, errors=errors, in_order=in_order)
    else:
        pieces = state.storage.of(row.storage).read(row.id)
    return await _send(request, row, pieces)


async def _send(request: web.Request, row: FileRow, pieces: AsyncIterator[bytes]) -> web.StreamResponse:
    plain = "".join(one if one.isascii() and one not in '"\\' else "_" for one in row.filename)
    response = web.StreamResponse(
        headers={
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(row.filename, safe='')}",
            "X-Content-Type-Options": "nosniff",
            "x-request-id": request[REQUEST_ID],
        }
    )
    response.content_length = row.bytes
    if request.method == "HEAD":
        return response
    first = await anext(pieces, b"")  # what goes wrong by now is still an error's answer
    await response.prepare(request)
    try:
        sent = await _write(response, first)
        async for piece in pieces:
            sent += await _write(response, piece)
        if row.bytes not in (None, sent):
            raise Missing
        await response.write_eof()
    except ConnectionResetError:
        raise
    except Exception as error:
        log.warning("file.broken_off", file=ids.show("file", row.id), error=str(error) or type(error).__name__)
        if request.transport is not None:  # nothing else tells the reader that there is more
            request.transport.abort()
    return response


async def _write(response: web.StreamResponse, piece: bytes) -> int:
    async with asyncio.timeout(SEND_SECONDS):
        await response.write(piece)
    return len(piece)


async def _file(request: web.Request) -> FileRow:
    id_ = reading.path_id(request, "file")
    async with db.transaction(request.app[STATE].engine) as connection:
        row = await files.get(connection, request[TENANT], id_)
    if row is None:
        raise reading.not_found("file", request.match_info["id"])
    return row


async def _remove(state: State, storage: Storage, id_: UUID) -> None:
    """Remove a file's content and what is known of it; what fails here is left to maintenance."""
    try:
        await storage.delete(id_)
        async with db.transaction(state.engine) as connection:
            await files.forget(connection, [id_])
    except Exception as error:
        log.warning("file.left", file=ids.show("file", id_), error=str(error) or type(error).__name__)
