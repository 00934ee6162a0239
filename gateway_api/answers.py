"""Answers: JSON, lists, and the one error envelope."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from aiohttp import web

from gateway_api.state import REQUEST_ID
from shared.errors import ApiError
from shared.serving import MESSAGES

_ANTHROPIC = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def as_json(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a JSON answer."""
    return web.Response(body=orjson.dumps(value), status=status, headers=headers, content_type="application/json")


def page(shown: Sequence[dict[str, Any]], *, limit: int) -> web.Response:
    """Return a list's page; `shown` holds one object more than `limit` where there is a next page."""
    held = shown[:limit]
    return as_json(
        {
            "object": "list",
            "data": held,
            "first_id": held[0]["id"] if held else None,
            "last_id": held[-1]["id"] if held else None,
            "has_more": len(shown) > limit,
        }
    )


def envelope(error: ApiError, request: web.Request) -> web.Response:
    """Return an error as OpenAI's `{"error": {...}}`; with several faults they are listed in `error.faults`.

    On the routes of Anthropic's dialect it is Anthropic's envelope too, its `type` being one of Anthropic's.
    """
    told: dict[str, Any] = {"error": shown(error)}
    if request.path.startswith(MESSAGES):
        told = {"type": "error", "error": as_anthropic(error), "request_id": request[REQUEST_ID]}
    if error.faults:
        told["error"]["faults"] = [{"param": fault.param, "message": fault.message} for fault in error.faults]
    headers = {"Retry-After": str(min(error.retry_after, 60))} if error.retry_after is not None else {}
    if error.should_retry is not None:
        headers["x-should-retry"] = str(error.should_retry).lower()
    return as_json(told, status=error.status, headers=headers)


def shown(error: ApiError) -> dict[str, Any]:
    """Return an error as it is in OpenAI's envelope."""
    return {"message": error.message, "type": error.type, "param": error.param, "code": error.code}


def as_anthropic(error: ApiError) -> dict[str, Any]:
    """Return the same with Anthropic's name of its type, which follows from the status."""
    usual = "api_error" if error.status >= 500 else "invalid_request_error"
    return shown(error) | {"type": _ANTHROPIC.get(error.status, usual)}
