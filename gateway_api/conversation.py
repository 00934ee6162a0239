"""Stored responses: looked up by their ids, and gone on from with `previous_response_id`.

A request that goes on from a response is stored with all that was said before as its input, so that each turn needs
one look-up, and any vendor can serve it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from gateway_api.state import State
from shared import ids, responses
from shared.db import engine as db
from shared.db import jobs
from shared.errors import ApiError
from shared.lifecycle import TERMINAL, Status
from shared.serving import RESPONSES


@dataclass(frozen=True, slots=True)
class Stored:
    """A response's job, a row or a `NewJob`, and the body of its request."""

    row: Any
    body: dict[str, Any]


async def find(state: State, tenant: str, shown: str) -> Stored | None:
    """Return a tenant's response by its id; None where there is none, or its request said `store: false`."""
    id_ = ids.parse("resp", shown)
    if id_ is None:
        return None
    async with db.transaction(state.engine) as connection:
        row = await jobs.with_request(connection, tenant, id_)
    if row is None or row.url != RESPONSES:
        return None
    body = orjson.loads(row.request)
    return None if body.get("store") is False else Stored(row, body)


def earlier_id(value: Mapping[str, Any]) -> str | None:
    """Return the id of the response that a job's request goes on from, None where it begins anew or is malformed."""
    body = value.get("body")
    shown = body.get("previous_response_id") if value.get("url") == RESPONSES and isinstance(body, dict) else None
    return shown if isinstance(shown, str) else None


async def expand(state: State, tenant: str, value: dict[str, Any]) -> None:
    """Put before the input of a job's request what was said up to its `previous_response_id`, if it has one.

    Raises ApiError: 404 where there is no such response, 400 where it has no answer, 413 where all together is more
    than a request may have. What is malformed is left as it is, for the reading of the request to say so.
    """
    shown = earlier_id(value)
    if shown is None or not isinstance(value["body"].get("input", []), str | list):
        return
    earlier = await find(state, tenant, shown)
    if earlier is None:
        raise _refused(404, f"No such response: {shown[:100]!r}.", "previous_response_not_found")
    status = earlier.row.status
    if status not in TERMINAL:
        raise _refused(400, "The earlier response has not ended yet.", "previous_response_not_ended")
    if status != Status.COMPLETED:
        raise _refused(400, f"The earlier response has no answer: it is {status}.", "previous_response_not_completed")
    expanded = responses.continued(value["body"], earlier.body, orjson.loads(earlier.row.result))
    most = state.settings.max_body_bytes
    if len(orjson.dumps(expanded)) > most:
        raise _refused(413, f"With the earlier turns the request has more than {most} bytes.", "body_too_large")
    value["body"] = expanded


def _refused(status: int, message: str, code: str) -> ApiError:
    return ApiError(status, message, code=code, param="previous_response_id")
