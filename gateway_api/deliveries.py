"""Deliveries of webhooks over HTTP: what became of them, try by try, and having events delivered again."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, get_args

from aiohttp import web
from pydantic import Field

from gateway_api import reading
from gateway_api.admin.changing import Closed, body
from gateway_api.answers import as_json, page
from gateway_api.state import STATE, TENANT, State
from gateway_api.webhook_endpoints import endpoint
from shared import ids, public
from shared.db import delivery_history
from shared.db import engine as db
from shared.db.deliveries import Status
from shared.db.delivery_history import DeliveryFilter, DeliveryRow
from shared.db.webhook_endpoints import EndpointRow
from shared.errors import ApiError
from shared.event_types import EVENT_TYPES, EventType
from shared.queue import DELIVER_WAKE, RedisAway
from shared.schemas import Moment

STATUSES: tuple[Status, ...] = get_args(Status)
_IDS: dict[str, ids.Prefix] = {"job_id": "job", "batch_id": "batch", "event_id": "evt", "endpoint_id": "webhook"}
_LONGEST_AGO = timedelta(days=31)


class ReplayRequest(Closed):
    """`{"since", "until", "types", "status"}`: which of an endpoint's events are to come again."""

    since: Moment
    until: Moment | None = None
    types: Annotated[list[EventType], Field(min_length=1)] | None = None
    status: Literal["delivered", "exhausted", "disabled"] | None = None


async def list_(request: web.Request) -> web.Response:
    """`GET /v1/webhook_deliveries`: newest first; `?status=exhausted` are the dead letters."""
    return await _page(request, _filter(request, _IDS))


async def list_of_endpoint(request: web.Request) -> web.Response:
    """`GET /v1/webhook_endpoints/{id}/deliveries`: newest first."""
    async with db.transaction(request.app[STATE].engine) as connection:
        row = await endpoint(connection, request)
    names = {name: prefix for name, prefix in _IDS.items() if name != "endpoint_id"}
    return await _page(request, _filter(request, names) | {"endpoint_id": row.id})


async def _page(request: web.Request, wanted: dict[str, Any]) -> web.Response:
    limit, after = reading.limit(request), request.query.get("after")
    behind = None if after is None else reading.id_of("delivery", after, param="after")
    async with db.transaction(request.app[STATE].engine) as connection:
        rows = await delivery_history.page(
            connection, request[TENANT], DeliveryFilter(**wanted), after=behind, limit=limit + 1
        )
    return page([shown(row) for row in rows], limit=limit)


def _filter(request: web.Request, named: dict[str, ids.Prefix]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in request.query.items():
        if name in ("after", "limit"):
            continue
        if name in named:
            found[name] = reading.id_of(named[name], value, param=name)
        elif name in ("status", "type"):
            known = STATUSES if name == "status" else EVENT_TYPES
            if value not in known:
                raise ApiError(400, f"{name} must be one of {', '.join(known)}.", param=name)
            found[name] = value
        else:
            raise ApiError(400, f"There is no filter {name[:100]!r}.", param=name[:100])
    return found


async def retrieve(request: web.Request) -> web.Response:
    """`GET /v1/webhook_deliveries/{id}`, with its tries."""
    tenant = request[TENANT]
    async with db.transaction(request.app[STATE].engine) as connection:
        row = await _delivery(connection, request)
        tries = await delivery_history.attempts_of(connection, tenant, row.id)
    told = shown(row) | {"url": row.url or row.endpoint_url}
    return as_json(told | {"attempts": [_attempt(one) for one in tries]})


async def redeliver(request: web.Request) -> web.Response:
    """`POST /v1/webhook_deliveries/{id}/redeliver`: 202 and a new delivery of the same event."""
    state, tenant = request.app[STATE], request[TENANT]
    async with db.transaction(state.engine) as connection:
        row = await _delivery(connection, request)
        _check_enabled(row)
        if row.status == "pending":
            raise ApiError(409, "This delivery is still pending.", code="delivery_pending", should_retry=False)
        made = await delivery_history.redeliver(connection, tenant, row.id)
    await _wake(state)
    headers = {"Location": f"/v1/webhook_deliveries/{ids.show('delivery', made.id)}"}
    return as_json(shown(made), status=202, headers=headers)


async def replay(request: web.Request) -> web.Response:
    """`POST /v1/webhook_endpoints/{id}/replay` `{"since", "until"?, "types"?, "status"?}`: 202 and how many."""
    state, asked, now = request.app[STATE], await body(request, ReplayRequest), datetime.now(UTC)
    until = min(asked.until or now, now)
    if asked.since < now - _LONGEST_AGO:
        raise ApiError(400, f"since may be {_LONGEST_AGO.days} days ago at most.", param="since")
    async with db.transaction(state.engine) as connection:
        row = await endpoint(connection, request)
        _check_enabled(row)
        if not await delivery_history.take_turn(connection, row.id):
            said = "Another replay to this endpoint is under way."
            raise ApiError(409, said, code="replay_under_way", retry_after=1)
        replayed, following = await delivery_history.replay(
            connection, row.tenant_id, row.id, since=asked.since, until=until, types=asked.types, status=asked.status
        )
    if replayed:
        await _wake(state)
    told = {"object": "webhook_endpoint.replay", "webhook_endpoint_id": request.match_info["id"], "replayed": replayed}
    return as_json(told | {"has_more": following is not None, "next_since": _moment_of(following)}, status=202)


def _check_enabled(row: EndpointRow | DeliveryRow) -> None:
    if not row.enabled:
        raise ApiError(409, "This endpoint is disabled: enable it first.", code="webhook_disabled")


async def _delivery(connection: db.Connection, request: web.Request) -> DeliveryRow:
    row = await delivery_history.get(connection, request[TENANT], reading.path_id(request, "delivery"))
    if row is None:
        raise reading.not_found("delivery", request.match_info["id"])
    return row


async def _wake(state: State) -> None:
    with suppress(*RedisAway):  # then it is found a moment later
        await state.queue.wake(DELIVER_WAKE)


def _moment_of(event_id: Any) -> str | None:
    """Return an event's time, which its id begins with."""
    if event_id is None:
        return None
    return public.moment(datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=event_id.int >> 80))


def shown(row: DeliveryRow) -> dict[str, Any]:
    """Return a delivery as its tenant sees it; `url` is that of an address that a job or a batch named."""
    pending = row.status == "pending"
    return {
        "id": ids.show("delivery", row.id),
        "object": "webhook_delivery",
        "event_id": ids.show("evt", row.event_id),
        "type": row.type,
        "webhook_endpoint_id": None if row.endpoint_id is None else ids.show("webhook", row.endpoint_id),
        "url": row.url,
        "job_id": None if row.job_id is None else ids.show("job", row.job_id),
        "batch_id": None if row.batch_id is None else ids.show("batch", row.batch_id),
        "status": row.status,
        "tries": row.tries,
        "event_at": _moment_of(row.event_id),
        "next_try_at": public.moment(row.next_at) if pending else None,
        "finished_at": public.moment(row.finished_at),
        "status_code": row.answer_status,
        "error": row.answer_error,
    }


def _attempt(row: Any) -> dict[str, Any]:
    return {
        "number": row.number,
        "at": public.moment(row.at),
        "status_code": row.status,
        "latency_ms": row.ms,
        "error": row.error,
        "excerpt": row.excerpt,
    }
