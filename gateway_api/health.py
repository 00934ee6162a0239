"""Is the process alive, can it serve, and what a browser sees at `/`."""

import asyncio
from collections.abc import Awaitable
from html import escape

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


async def index(request: web.Request) -> web.Response:
    """`GET /`: where a person who opens the address finds out what this is."""
    config = request.app[STATE].config
    providers = "".join(f"<li>{escape(name)} ({escape(one.kind)})</li>" for name, one in config.providers.items())
    return web.Response(text=_PAGE.format(providers=providers), content_type="text/html")


_PAGE = """<!doctype html><meta charset="utf-8"><title>Sluice</title>
<style>body{{font:16px/1.5 system-ui;max-width:40em;margin:4em auto;padding:0 1em}}code{{background:#eee}}</style>
<h1>Sluice</h1><p>The gateway is running. Submit with <code>POST /v1/jobs</code> or <code>sluice submit</code>, look at
<code>GET /v1/jobs</code> or <code>sluice jobs list</code>.</p><h2>Providers</h2><ul>{providers}</ul>
<p><a href="/readyz">readiness</a></p>"""
