"""Answers: JSON, lists, and the one error envelope."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from aiohttp import web

from shared.errors import ApiError


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


def envelope(error: ApiError) -> web.Response:
    """Return an error as OpenAI's `{"error": {...}}`; with several faults they are listed in `error.faults`."""
    shape: dict[str, Any] = {
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
    }
    if error.faults:
        shape["faults"] = [{"param": fault.param, "message": fault.message} for fault in error.faults]
    headers = {"Retry-After": str(min(error.retry_after, 60))} if error.retry_after is not None else {}
    if error.should_retry is not None:
        headers["x-should-retry"] = str(error.should_retry).lower()
    return as_json({"error": shape}, status=error.status, headers=headers)
