"""Is the process alive, can it serve."""

import asyncio
from collections.abc import Awaitable

from aiohttp import web

from gateway_api.answers import as_json
from gateway_api.state import STATE
from shared.db import engine as db
from shared.errors import Unavailable
from shared.queue import RedisAway

_SECONDS = 3


async def healthz(_: web.Request) -> web.Response:
    """`GET /healthz`: the process answers."""
    return as_json({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """`GET /readyz`: 200 where Postgres and Redis answer, else 503 naming who does not."""
    state = request.app[STATE]
    checks = {"postgres": _answers(db.ping(state.engine)), "redis": _answers(state.queue.redis.ping())}
    found = dict(zip(checks, await asyncio.gather(*checks.values()), strict=True))
    ready = all(found.values())
    shape = {
        "status": "ready" if ready else "unavailable",
        **{name: "ok" if ok else "away" for name, ok in found.items()},
    }
    return as_json(shape, status=200 if ready else 503, headers=None if ready else {"Retry-After": "2"})


async def _answers(check: Awaitable[object]) -> bool:
    try:
        async with asyncio.timeout(_SECONDS):
            await check
    except (Unavailable, TimeoutError, *RedisAway):
        return False
    return True
