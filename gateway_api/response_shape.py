"""A job as the response that it is, at every moment of its life."""

from typing import Any

import orjson

from gateway_api.conversation import Stored
from gateway_api.synchronous import failure
from shared import ids
from shared.lifecycle import Status
from shared.responses import shell


def begun(stored: Stored) -> dict[str, Any]:
    """Return a response of which nothing is known but what was asked."""
    row = stored.row
    created = (row.id.int >> 80) // 1000  # a UUIDv7 begins with its time in ms
    shape = shell(stored.body, id=ids.show("resp", row.id), created=created, model=row.model)
    return shape | {"status": "queued"}


def shown(stored: Stored) -> Any:
    """Return a response as it stands: an answer as it was stored, otherwise what became of it, as JSON values."""
    row = stored.row
    match row.status:
        case Status.COMPLETED:
            return orjson.Fragment(row.result)
        case Status.FAILED | Status.EXPIRED:
            error = failure(row)
            said = {"code": error.code, "message": error.message}
            return begun(stored) | {"status": "failed", "error": said}
        case status:
            return begun(stored) | {"status": str(status)}
