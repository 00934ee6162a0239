"""Trying an endpoint out: a sample goes the way of every event, signed and from the outbox, and its answer is told."""

import asyncio
import time
from contextlib import suppress
from typing import Any
from uuid import UUID

from aiohttp import web

from gateway_api.admin.changing import body
from gateway_api.answers import as_json
from gateway_api.state import STATE, TENANT, State
from gateway_api.webhook_endpoints import endpoint
from gateway_api.webhook_request import TestRequest
from shared import ids
from shared.db import engine as db
from shared.db import trial_deliveries
from shared.errors import ApiError
from shared.event_types import EventType
from shared.queue import DELIVER_WAKE, RedisAway

PATIENCE = 5.0
"""Seconds a sample may wait for its turn, besides the time that its receiver has to answer."""

LOOK_SECONDS = 0.1
MOST_AT_ONCE = 10
"""Samples of one tenant that a front door waits for at a time."""


async def test(request: web.Request) -> web.Response:
    """`POST /v1/webhook_endpoints/{id}/test` `{"event_type"}`: sends a sample once and tells its receiver's answer."""
    state, tenant = request.app[STATE], request[TENANT]
    asked = await body(request, TestRequest, may_be_empty=True)
    if state.samples[tenant] >= MOST_AT_ONCE:
        said = f"{MOST_AT_ONCE} tests are under way."
        raise ApiError(429, said, type="rate_limit_error", code="too_many_tests", retry_after=1)
    state.samples[tenant] += 1
    try:
        return await _test(request, asked.event_type)
    finally:
        state.samples[tenant] -= 1
        if not state.samples[tenant]:
            del state.samples[tenant]


async def _test(request: web.Request, wanted: EventType | None) -> web.Response:
    state, tenant, id_ = request.app[STATE], request[TENANT], ids.new_id()
    async with db.transaction(state.engine) as connection:
        row = await endpoint(connection, request)
        if not row.enabled:
            raise ApiError(409, "This endpoint is disabled: enable it first.", code="webhook_disabled")
        type_ = wanted or row.event_types[0]
        await trial_deliveries.insert(connection, id_, tenant, row.id, type=type_, body=_sample(type_, row.id))
    with suppress(*RedisAway):
        await state.queue.wake(DELIVER_WAKE)
    try:
        status = await _answer(state, tenant, id_)
    finally:
        async with db.transaction(state.engine) as connection:
            await trial_deliveries.end(connection, tenant, id_)
    return as_json(
        {
            "object": "webhook_endpoint.test",
            "webhook_endpoint_id": request.match_info["id"],
            "event_type": type_,
            "status_code": status,
            "success": True,
            "delivery_id": ids.show("delivery", id_),
        }
    )


async def _answer(state: State, tenant: str, id_: UUID) -> int:
    """Return the status that the receiver answered a sample with. Raises ApiError 400 where it did not."""
    deadline = time.monotonic() + state.settings.webhook_timeout + PATIENCE
    while time.monotonic() < deadline:
        await asyncio.sleep(LOOK_SECONDS)
        async with db.transaction(state.engine) as connection:
            tried = await trial_deliveries.first_try(connection, tenant, id_)
        if tried is not None and tried.status is not None:
            return int(tried.status)
        if tried is not None:
            raise _failed(f"The receiver did not answer: {tried.error}.")
    raise _failed("The sample was not sent in time: is `sluice deliver` running?")


def _failed(message: str) -> ApiError:
    return ApiError(400, message, code="webhook_test_failed")


def _sample(type_: EventType, endpoint_id: UUID) -> dict[str, Any]:
    """Return what a sample is about: something of the right kind that does not exist."""
    noun = type_.partition(".")[0]
    if noun == "webhook_endpoint":
        return {"id": ids.show("webhook", endpoint_id), "object": noun, "test": True}
    prefix: ids.Prefix = {"job": "job", "batch": "batch", "response": "resp"}.get(noun, "budget")  # type: ignore[assignment]
    return {"id": ids.show(prefix, UUID(int=0)), "object": noun, "test": True}
