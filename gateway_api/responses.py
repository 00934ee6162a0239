"""OpenAI's Responses as stored objects: made in the background, fetched, followed, cancelled, their input listed.

A response is a job whose route is `/v1/responses`, however it was submitted.
"""

import orjson
from aiohttp import web

from gateway_api import conversation, jobs, reading, synchronous
from gateway_api.answers import as_json, page
from gateway_api.conversation import Stored
from gateway_api.response_shape import shown
from gateway_api.response_stream import send_events
from gateway_api.state import STATE, TENANT
from shared import ids
from shared.errors import ApiError
from shared.lifecycle import TERMINAL
from shared.responses import input_items
from shared.serving import RESPONSES


async def create(request: web.Request) -> web.StreamResponse:
    """`POST /v1/responses`: in the foreground, or in the `background`, which goes on when the caller leaves."""
    raw = await reading.body_bytes(request)
    body = reading.json_object(raw)
    if body.get("background") is not True:
        return await synchronous.run(request, RESPONSES, raw, body)
    key = reading.idempotency_key(request, raw)
    asked = {"url": RESPONSES, "body": body, "priority": request.headers.get("x-sluice-priority", "standard")}
    new, accepted, dropped = await synchronous.submit(request, asked, key)
    stored = Stored(new, orjson.loads(new.body))
    if accepted.replayed:
        found = await conversation.find(request.app[STATE], request[TENANT], ids.show("resp", accepted.id))
        if found is None:
            raise jobs.no_longer_kept()
        stored = found
    headers = synchronous.said_of(new, accepted, dropped)
    if body.get("stream"):
        return await send_events(request, stored, headers=headers)
    return as_json(shown(stored), headers=headers)


async def retrieve(request: web.Request) -> web.StreamResponse:
    """`GET /v1/responses/{id}`; with `?stream=true` its events, those after `starting_after` if that is given."""
    stored = await _stored(request)
    if _flag(request, "stream"):
        return await send_events(request, stored, after=_starting_after(request))
    return _answer(stored)


async def cancel(request: web.Request) -> web.Response:
    """`POST /v1/responses/{id}/cancel`: stops what runs in the background; one that has ended is answered as it is."""
    state, tenant, stored = request.app[STATE], request[TENANT], await _stored(request)
    if stored.body.get("background") is not True:
        said = "Only a response that was made in the background can be cancelled."
        raise ApiError(400, said, code="not_in_background")
    id_ = stored.row.id
    if stored.row.status not in TERMINAL:
        row = await jobs.stop(state, tenant, id_)
        row = await jobs.ended(state, tenant, id_, jobs.CANCEL_PATIENCE) or row
        stored = Stored(row or stored.row, stored.body)
    return _answer(stored)


async def list_input(request: web.Request) -> web.Response:
    """`GET /v1/responses/{id}/input_items`: what was said before the answer, the last first unless `order=asc`."""
    stored = await _stored(request)
    limit, order, after = reading.limit(request), request.query.get("order", "desc"), request.query.get("after")
    if order not in ("asc", "desc"):
        raise ApiError(400, "order must be asc or desc.", param="order")
    items = input_items(stored.body, stored.row.id.hex)
    if order == "desc":
        items.reverse()
    if after is not None:
        place = next((index for index, item in enumerate(items) if item["id"] == after), None)
        if place is None:
            raise ApiError(400, "after must be the id of one of the response's input items.", param="after")
        items = items[place + 1 :]
    return page(items[: limit + 1], limit=limit)


async def _stored(request: web.Request) -> Stored:
    shown_id = request.match_info["id"]
    found = await conversation.find(request.app[STATE], request[TENANT], shown_id)
    if found is None:
        raise ApiError(404, f"No such response: {shown_id[:100]!r}.", code="response_not_found")
    return found


def _answer(stored: Stored) -> web.Response:
    return as_json(shown(stored), headers={"x-sluice-job-id": ids.show("job", stored.row.id)})


def _flag(request: web.Request, name: str) -> bool:
    given = request.query.get(name, "false")
    if given not in ("true", "false"):
        raise ApiError(400, f"{name} must be true or false.", param=name)
    return given == "true"


def _starting_after(request: web.Request) -> int:
    given = request.query.get("starting_after")
    if given is None:
        return -1
    if not given.isascii() or not given.isdigit() or len(given) > 15:
        raise ApiError(400, "starting_after must be the sequence_number of an event.", param="starting_after")
    return int(given)
