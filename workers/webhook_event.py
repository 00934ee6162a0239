"""What a webhook says: an event's JSON, made when it is sent, of what it is about as that is then. Pure."""

from typing import Any

import orjson

from shared import ids, public

MOST_RESULT_BYTES = 256 * 1024
"""A larger result is not sent: the receiver is told where it is."""


def event(delivery: Any, about: Any) -> bytes:
    """Return a delivery's body: `{"id", "object": "event", "type", "created_at", "data"}`.

    `about` is the row of its job or its batch; of another event the delivery has what it is about itself. Deliveries of
    one event, as to two endpoints or after a replay, have the same `id` and `created_at`.
    """
    return orjson.dumps(
        {
            "id": ids.show("evt", delivery.event_id),
            "object": "event",
            "type": delivery.type,
            "created_at": (delivery.event_id.int >> 80) // 1000,  # a UUIDv7 begins with its time in ms
            "data": _told(delivery, about),
        }
    )


def _told(delivery: Any, about: Any) -> dict[str, Any]:
    if delivery.body is not None:
        return dict(delivery.body)
    if delivery.batch_id is not None:
        return public.batch(about)
    result = about.result if delivery.include_result else None
    shown = public.job(about, result) if delivery.type.startswith("job.") else _response(about, result)
    if delivery.include_result and about.result is None and about.result_bytes is not None:
        shown |= {"truncated": True, "result_url": f"/v1/jobs/{ids.show('job', about.id)}"}
    return shown


def _response(job: Any, result: bytes | None) -> dict[str, Any]:
    """Return a response as OpenAI's events have it, its id alone; with its result under a name of our own."""
    shown: dict[str, Any] = {"id": ids.show("resp", job.id)}
    return shown if result is None else shown | {"response": orjson.Fragment(result)}
