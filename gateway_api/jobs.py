"""Jobs over HTTP: submit, look at, wait for, cancel."""

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from aiohttp import web

from gateway_api import admission, conversation, reading
from gateway_api.answers import as_json, page
from gateway_api.state import CALLER, STATE, TENANT, State
from gateway_api.submit import Accepted
from shared import ids, public
from shared.commit import commit
from shared.db import engine as db
from shared.db import jobs
from shared.db.jobs import JobFilter, JobRow, NewJob
from shared.db.transitions import ended_queued
from shared.errors import ApiError
from shared.lifecycle import TERMINAL, Status
from shared.limits import deployments_json
from shared.queue import CANCEL, RedisAway
from shared.routing import Target

POLL_HINT_SECONDS = 1
CANCEL_PATIENCE = 2.0
LOOK_SECONDS = 10.0


async def create(request: web.Request) -> web.Response:
    """`POST /v1/jobs`."""
    state = request.app[STATE]
    raw = await reading.body_bytes(request)
    key, value = reading.idempotency_key(request, raw), reading.json_object(raw)
    await conversation.expand(state, request[TENANT], value)
    dropped = reading.drop_unsupported(value, state.router)
    new = reading.new_job(value, state.router, caller=request[CALLER])
    seconds = reading.wait_seconds(request)
    if isinstance(new, list):
        known = None if key is None else await state.submitter.known(request[TENANT], key)
        if known is None:
            raise reading.refusal(new)
        # What was accepted once may be refused now: its deadline has passed.
        return await accepted(state, request[TENANT], known, seconds=seconds, dropped=dropped)
    await admission.admit(request, [new], key)
    [new] = await state.funds.cover([new], key)
    made = await state.submitter.submit(new, key)
    return await accepted(state, request[TENANT], made, new, seconds=seconds, dropped=dropped)


async def accepted(
    state: State, tenant: str, result: Accepted, new: NewJob | None = None, *, seconds: float, dropped: Sequence[str]
) -> web.Response:
    """Return the answer to a submit, held for up to `seconds` until the job, `new` where it is, has ended."""
    headers = reading.dropped_header(dropped) | ({"Idempotent-Replayed": "true"} if result.replayed else {})
    row: JobRow | NewJob | None = new
    if seconds:
        row = await ended(state, tenant, result.id, seconds)
    elif result.replayed:
        async with db.transaction(state.engine) as connection:
            row = await jobs.get(connection, tenant, result.id)
    if row is None:
        raise no_longer_kept()
    return answer(row, headers)


def no_longer_kept() -> ApiError:
    """Return the refusal of an idempotency key whose job is no longer kept."""
    return ApiError(410, "The job of this Idempotency-Key is no longer kept.", code="job_not_found")


async def retrieve(request: web.Request) -> web.Response:
    """`GET /v1/jobs/{id}`, with `?wait=N` held until the job ends."""
    state, tenant, id_ = request.app[STATE], request[TENANT], reading.path_id(request, "job")
    seconds = reading.wait_seconds(request)
    row = await ended(state, tenant, id_, seconds)
    if row is None:
        raise reading.not_found("job", request.match_info["id"])
    if seconds:
        return answer(row, {})
    return as_json(public.job(row, row.result) | {"queue": await _place(state, row)})


async def _place(state: State, row: JobRow) -> dict[str, Any] | None:
    """Return where a queued job stands, or when it will, or for how many others it waits.

    None for one that is not queued, or while Redis is away.
    """
    if row.status != Status.QUEUED or row.provider not in state.config.providers:
        return None
    if row.waits_for:
        return {"position": None, "eta_seconds": None, "waits_for": row.waits_for}
    later = (row.run_at - datetime.now(UTC)).total_seconds()
    if later > 0:
        return {"position": None, "eta_seconds": round(later, 1)}
    with suppress(*RedisAway):
        target = Target(row.provider, row.upstream_model)
        limits = deployments_json(state.config.providers[row.provider])
        if found := await state.queue.place(target, row.id, limits=limits):
            before, seconds = found
            return {"position": before + 1, "eta_seconds": None if seconds is None else round(seconds, 1)}
    return None


async def attempts(request: web.Request) -> web.Response:
    """`GET /v1/jobs/{id}/attempts`: the ended ones, and the one under way."""
    state, tenant, id_ = request.app[STATE], request[TENANT], reading.path_id(request, "job")
    async with db.transaction(state.engine) as connection:
        row = await jobs.get(connection, tenant, id_)
        ended = await jobs.attempts_of(connection, tenant, id_)
    if row is None:
        raise reading.not_found("job", request.match_info["id"])
    shown = [public.attempt(attempt) for attempt in ended]
    if row.status == Status.IN_PROGRESS:
        shown.append(public.running_attempt(row))
    return as_json({"object": "list", "data": shown, "has_more": False})


async def list_(request: web.Request) -> web.Response:
    """`GET /v1/jobs`: newest first, without prompts and results."""
    state, tenant = request.app[STATE], request[TENANT]
    limit, after = reading.limit(request), request.query.get("after")
    async with db.transaction(state.engine) as connection:
        rows = await jobs.page(
            connection,
            tenant,
            filter_of(dict(request.query)),
            after=None if after is None else reading.id_of("job", after, param="after"),
            limit=limit + 1,
        )
    return page([public.job(row) for row in rows], limit=limit)


async def cancel(request: web.Request) -> web.Response:
    """`POST /v1/jobs/{id}/cancel`: stops a job wherever it is; one that has ended is answered as it is."""
    state, tenant, id_ = request.app[STATE], request[TENANT], reading.path_id(request, "job")
    row = await stop(state, tenant, id_)
    if row is None:
        raise reading.not_found("job", request.match_info["id"])
    if row.status == Status.IN_PROGRESS:
        row = await ended(state, tenant, id_, CANCEL_PATIENCE) or row
    return as_json(public.job(row, row.result))


async def stop(state: State, tenant: str, id_: UUID) -> JobRow | None:
    """Have a job cancelled wherever it is; return it, perhaps still in progress, or None where there is none."""
    row = None
    while row is None or row.status == Status.QUEUED:  # claimed or re-queued between our read and our write: look again
        async with db.transaction(state.engine) as connection:
            row = await jobs.ask_cancel(connection, tenant, id_)
        if row is None:
            return None
        if row.status == Status.QUEUED:
            await commit(state.engine, state.queue, [ended_queued(row, "cancelled")])
    if row.status == Status.IN_PROGRESS:
        with suppress(*RedisAway):  # its worker finds the mark when it renews its lease
            await state.queue.announce(CANCEL, [id_])
    return row


def answer(row: JobRow | NewJob, headers: dict[str, str]) -> web.Response:
    """Return 200 with a job that has ended, else 202 and when to look again."""
    if row.status in TERMINAL:
        return as_json(public.job(row, getattr(row, "result", None)), headers=headers)
    headers |= {"Location": f"/v1/jobs/{ids.show('job', row.id)}", "Retry-After": str(POLL_HINT_SECONDS)}
    return as_json(public.job(row), status=202, headers=headers)


async def ended(state: State, tenant: str, id_: UUID, seconds: float) -> JobRow | None:
    """Return a job, once it has ended or `seconds` have passed; None where there is none."""

    async def read() -> JobRow | None:
        async with db.transaction(state.engine) as connection:
            return await jobs.get(connection, tenant, id_)

    event = state.waiters.register(id_)
    try:
        row = await read()
        if not seconds or row is None or row.status in TERMINAL:
            return row
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while row is not None and row.status not in TERMINAL and loop.time() < deadline:
            with suppress(TimeoutError):  # an announcement may be lost: now and then we look for ourselves
                async with asyncio.timeout_at(min(deadline, loop.time() + LOOK_SECONDS)):
                    await event.wait()
            event.clear()
            row = await read()
        return row
    finally:
        state.waiters.forget(id_, event)


_FILTERS: dict[str, Callable[[str], Any]] = {
    "status": str,
    "model": str,
    "batch_id": lambda text: reading.id_of("batch", text, param="batch_id"),
    "created_after": lambda text: _moment_id(text, "created_after"),
    "created_before": lambda text: _moment_id(text, "created_before"),
}
_EPOCH = datetime.fromtimestamp(0, UTC)
_METADATA = re.compile(r"metadata\.(.{1,64})", re.DOTALL)


def filter_of(asked: dict[str, Any]) -> JobFilter:
    """Return the filter that a query or a JSON object describes. Raises ApiError 400 for what is no filter."""
    found: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    for name, value in asked.items():
        if name in ("after", "limit"):
            continue
        if not isinstance(value, str) or "\0" in value or "\0" in name:
            raise ApiError(400, f"{name} must be a string without NUL characters.", param=name)
        if name in _FILTERS:
            found[name] = _FILTERS[name](value)
        elif match := _METADATA.fullmatch(name):
            metadata[match[1]] = value
        else:
            raise ApiError(400, f"There is no filter {name[:100]!r}.", param=name[:100])
    if "status" in found and found["status"] not in set(Status):
        raise ApiError(400, f"status must be one of {', '.join(Status)}.", param="status")
    return JobFilter(**found, metadata=metadata or None)


def _moment_id(text: str, param: str) -> UUID:
    try:
        moment = datetime.fromisoformat(text)
        return ids.lowest_id_at((moment.replace(tzinfo=moment.tzinfo or UTC) - _EPOCH) // timedelta(milliseconds=1))
    except (ValueError, OverflowError):
        raise ApiError(400, f"{param} must be a date and time in RFC 3339.", param=param) from None
