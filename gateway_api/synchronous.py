"""OpenAI's synchronous routes: a job at interactive priority, and its answer on the same connection.

A caller that leaves takes its job with it, unless it sent an `Idempotency-Key`, with which it may come back for the
answer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import orjson
from aiohttp import web

from gateway_api import admission, conversation, jobs, reading
from gateway_api.answers import as_anthropic, envelope, shown
from gateway_api.following import Missing, Restarted, Stand, Steps, follow
from gateway_api.sse import EventStream, check_reader
from gateway_api.state import CALLER, STATE, TENANT
from gateway_api.submit import Accepted, IdempotencyKey
from shared import ids, public
from shared.db.jobs import JobRow, NewJob
from shared.errors import HANDLING, ApiError, ErrorKind
from shared.lifecycle import Status
from shared.messages import as_events
from shared.queue.chunks import Piece
from shared.responses import replay
from shared.serving import MESSAGES, RESPONSES, closes

EMBEDDINGS = "/v1/embeddings"
_NAMED = frozenset({RESPONSES, MESSAGES})
"""Routes whose streams consist of events with a name."""

_RETRY_AFTER = {ErrorKind.BUDGET_EXHAUSTED: 60, ErrorKind.MAX_COST: 60}


async def chat(request: web.Request) -> web.StreamResponse:
    """`POST /v1/chat/completions`, and its alias `/v1/chat`."""
    return await _run(request, "/v1/chat/completions")


async def embeddings(request: web.Request) -> web.StreamResponse:
    """`POST /v1/embeddings`."""
    return await _run(request, EMBEDDINGS)


async def _run(request: web.Request, url: str) -> web.StreamResponse:
    raw = await reading.body_bytes(request)
    return await run(request, url, raw, reading.json_object(raw))


async def run(request: web.Request, url: str, raw: bytes, body: dict[str, Any]) -> web.StreamResponse:
    """Run a request of OpenAI's and answer it; `raw` is its body as it came."""
    state, tenant = request.app[STATE], request[TENANT]
    key, later = reading.idempotency_key(request, raw), reading.respond_async(request)
    asked: dict[str, Any] = {"url": url, "body": body, "priority": "interactive"}
    if not later:
        asked["deadline"] = state.settings.sync_timeout
    new, accepted, dropped = await submit(request, asked, key)
    if later:
        seconds = reading.wait_seconds(request)
        return await jobs.accepted(state, tenant, accepted, new, seconds=seconds, dropped=dropped)
    headers = said_of(new, accepted, dropped)
    streamed = bool(body.get("stream")) and url != EMBEDDINGS

    async def leave() -> None:
        if key is None:
            await jobs.stop(state, tenant, accepted.id)

    try:
        async with aclosing(follow(state, tenant, accepted.id)) as steps:
            if streamed:
                return await _stream(request, url, body, headers, steps, leave)
            return await _whole(request, headers, steps)
    except (ConnectionResetError, asyncio.CancelledError):  # the caller has left, or we are about to
        await asyncio.shield(leave())
        raise


async def submit(
    request: web.Request, asked: dict[str, Any], key: IdempotencyKey | None
) -> tuple[NewJob, Accepted, list[str]]:
    """Submit a job whose body is one of OpenAI's requests; return it, what it was accepted as, and what was dropped.

    Raises ApiError, with params as in the body.
    """
    state = request.app[STATE]
    if isinstance(asked["body"].get("metadata"), dict) and asked["url"] != MESSAGES:
        asked["metadata"] = asked["body"]["metadata"]
    await conversation.expand(state, request[TENANT], asked)
    dropped = reading.drop_unsupported(asked, state.router)
    new = reading.new_job(asked, state.router, caller=request[CALLER])
    if isinstance(new, list):
        raise reading.refusal([replace(fault, param=fault.param.removeprefix("body.")) for fault in new])
    await admission.admit(request, [new], key)
    [new] = await state.funds.cover([new], key, model="model")
    return new, await state.submitter.submit(new, key), dropped


def said_of(new: NewJob, accepted: Accepted, dropped: Sequence[str]) -> dict[str, str]:
    """Return what an answer's headers say of a job that was just accepted."""
    headers = {"x-sluice-job-id": ids.show("job", accepted.id), "x-sluice-provider": new.provider}
    return headers | reading.dropped_header(dropped) | ({"Idempotent-Replayed": "true"} if accepted.replayed else {})


async def _whole(request: web.Request, headers: dict[str, str], steps: Steps) -> web.Response:
    async for step in steps:
        if step is None:
            check_reader(request)
        elif isinstance(step, Stand) and step.ended:
            return _answer(request, step.row, headers)
    raise jobs.no_longer_kept()


async def _stream(
    request: web.Request,
    url: str,
    body: dict[str, Any],
    headers: dict[str, str],
    steps: Steps,
    leave: Callable[[], Awaitable[None]],
) -> web.StreamResponse:
    """Pass the chunks on; what goes wrong before the first of them is answered with its status, later by an event."""
    out = EventStream(request, headers)
    said = "What was sent is void: the answer broke off, or was asked for anew. Send the request again."
    lost = ApiError(502, said, type="server_error", code="interrupted")
    chunks, whole, skipping = 0, False, False
    async for step in steps:
        match step:
            case None:
                await out.idle()
            case Piece(chunk=dict(chunk)) if not skipping:
                await _send(out, url, chunk)
                chunks, whole = chunks + 1, whole or closes(chunk)
            case Restarted() | Missing() if chunks:
                # OpenAI's streams have no way to say that what was sent is void.
                await _send_error(out, url, lost)
                await leave()
                return await out.end()
            case Missing():
                skipping = True
            case Stand(row, ended=True):
                if row.status != Status.COMPLETED:
                    if not out.begun:
                        return _answer(request, row, headers)
                    await _send_error(out, url, failure(row))
                    return await out.end()
                if chunks and not whole:
                    await _send_error(out, url, lost)
                    return await out.end()
                if not chunks:  # the provider did not stream, the job had ended long ago, or Redis was emptied
                    for chunk in _few_chunks(row, url, body):
                        await _send(out, url, chunk)
                if url not in _NAMED:
                    await out.send(b"[DONE]")
                return await out.end()
            case _:
                pass
    raise jobs.no_longer_kept()


async def _send(out: EventStream, url: str, chunk: dict[str, Any]) -> None:
    await out.send(chunk, event=str(chunk.get("type", "")) if url in _NAMED else "")


async def _send_error(out: EventStream, url: str, error: ApiError) -> None:
    match url:
        case "/v1/responses":
            await out.send(shown(error) | {"type": "error", "sequence_number": 0}, event="error")
        case "/v1/messages":
            await out.send({"type": "error", "error": as_anthropic(error)}, event="error")
        case _:
            await out.send({"error": shown(error)})


def _answer(request: web.Request, row: JobRow, headers: dict[str, str]) -> web.Response:
    headers = headers | _figures(row)
    if row.status == Status.COMPLETED:
        return web.Response(body=row.result, headers=headers, content_type="application/json")
    response = envelope(failure(row), request)
    response.headers.update(headers)
    return response


def _figures(row: JobRow) -> dict[str, str]:
    """Return what an ended job's headers say of it."""
    shown = public.job(row)
    found = {
        "x-sluice-attempts": str(row.attempt - row.put_off),
        "x-sluice-cache": shown["cache"],
        "x-sluice-provider": row.provider,  # it may have gone elsewhere
    }
    if shown["cost_usd"] is not None:
        found["x-sluice-cost-usd"] = shown["cost_usd"]
    if row.started_at is not None:
        found["x-sluice-queue-ms"] = str(round((row.started_at - row.created_at).total_seconds() * 1000))
    return found


def failure(row: JobRow) -> ApiError:
    """Return the error that a job which did not complete is to a synchronous caller."""
    match row.status:
        case Status.EXPIRED:
            return ApiError(
                504,
                "The request could not be completed in time.",
                type="timeout_error",
                code="timeout",
                should_retry=False,
            )
        case Status.CANCELLED:
            return ApiError(409, "The job was cancelled.", code="cancelled", should_retry=False)
    kind = ErrorKind(row.error["code"])
    handling = HANDLING[kind]
    return ApiError(
        handling.status,
        row.error["message"],
        type=handling.type,
        code=handling.code or kind.value,
        retry_after=_RETRY_AFTER.get(kind, 1) if handling.status in (429, 503) else None,
        should_retry=False,
    )


def _few_chunks(row: JobRow, url: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a whole answer as the few chunks, or events, of a stream that has nothing more to say."""
    answer = orjson.loads(row.result)
    if url == RESPONSES:
        return replay(answer, attempt=row.attempt)
    if url == MESSAGES:
        return as_events(answer)
    head = {name: answer.get(name) for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    choices = []
    for choice in answer.get("choices") or ():
        delta = dict(choice.get("message") or {})
        if delta.get("tool_calls"):
            delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(delta["tool_calls"])]
        choices.append({"index": choice.get("index", 0), "delta": delta, "finish_reason": choice.get("finish_reason")})
    shown: list[dict[str, Any]] = [{**head, "choices": choices}]
    options = body.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        shown.append({**head, "choices": [], "usage": answer.get("usage")})
    return shown
