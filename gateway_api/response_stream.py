"""The events of a stored response, from any of them on: as they come, or of the whole answer where they are gone."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import orjson
from aiohttp import web

from gateway_api.conversation import Stored
from gateway_api.following import Stand, follow
from gateway_api.response_shape import begun, shown
from gateway_api.sse import EventStream
from gateway_api.state import STATE, TENANT, State
from shared.lifecycle import Status
from shared.queue.chunks import Piece, Position
from shared.responses import attempt_of, before, closes, replay

_END = 2**31
"""After all chunks of an attempt."""


async def send_events(
    request: web.Request, stored: Stored, *, after: int = -1, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Answer with a response's events whose `sequence_number` is above `after`, until the last."""
    out = EventStream(request, headers)
    async with aclosing(_events(request.app[STATE], request[TENANT], stored, after)) as events:
        async for event in events:
            if event is None:
                await out.idle()
            else:
                await out.send(event, event=event["type"])
    return await out.end()


async def _events(state: State, tenant: str, stored: Stored, after: int) -> AsyncGenerator[dict[str, Any] | None]:
    """Yield the events after one, and None about once a second while there is none.

    A reader has heard one attempt. Where another answers, what it has is void, which OpenAI's events cannot say: it is
    told by an `error`, whenever it asks for more, and may read from the beginning. Where chunks are missing, nothing
    more is said than how it ended.
    """
    row, body = stored.row, stored.body
    if after < 0:
        yield {"type": "response.created", "sequence_number": 0, "response": begun(stored)}
    heard, last, closed = attempt_of(after), max(after, 0), False
    # What came of attempts before the one that may still answer is void.
    start = Position(row.attempt - (row.status != Status.QUEUED), _END)
    async with aclosing(follow(state, tenant, row.id, after=start, status=row.status)) as steps:
        async for step in steps:
            match step:
                case None:
                    yield None
                case Piece(at, dict(event)):
                    number = event["sequence_number"]
                    if number <= last:
                        closed = closed or (at.attempt == heard and closes(event))
                    elif heard not in (0, at.attempt):
                        yield _void(last)
                        return
                    elif number == (last if heard else before(at.attempt)) + 1:
                        yield event
                        heard, last, closed = at.attempt, number, closes(event)
                case Stand(row, ended=True) if not closed:
                    for event in _ending(Stored(row, body), heard, last):
                        yield event


def _ending(stored: Stored, heard: int, last: int) -> list[dict[str, Any]]:
    """Return what is left to say of a response that has ended; events up to `last`, of an attempt, were heard."""
    row = stored.row
    if row.status != Status.COMPLETED:
        return [{"type": "response.failed", "sequence_number": last + 1, "response": shown(stored)}]
    if heard not in (0, row.attempt):
        return [_void(last)]
    events = replay(orjson.loads(row.result), attempt=row.attempt)
    if heard and stored.body.get("stream"):  # of these events it has heard others
        return [events[-1] | {"sequence_number": last + 1}]
    return [event for event in events if event["sequence_number"] > last]


def _void(last: int) -> dict[str, Any]:
    return {
        "type": "error",
        "sequence_number": last + 1,
        "code": "interrupted",
        "message": "The answer has begun anew, and what came of it is void: retrieve the response from its beginning.",
        "param": None,
    }
