"""The front door with everything but its work: the same app, routes and middleware, and a constant for an answer."""

import sys

import uvloop
from aiohttp import web

from gateway_api.access import BOOTSTRAP
from gateway_api.auth import Callers
from gateway_api.middleware import guard
from gateway_api.routes import ROUTES
from shared import queue
from shared.db import engine as db
from shared.queue import Queue
from tests.gateway import ADMIN_KEY

ANSWER = b'{"id":"job_00000000000000000000000000000000","object":"job","status":"queued"' + b" " * 500 + b"}"


async def constant(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=ANSWER, status=202, content_type="application/json")


def main(port: int) -> None:
    uvloop.install()
    unused = db.create("postgresql://unused", pool_size=1, name="constant"), Queue(queue.connect("redis://unused"))
    callers = Callers(ADMIN_KEY, *unused)
    callers._tenants.put("", BOOTSTRAP)  # what it would look up once
    app = web.Application(middlewares=[guard(callers)])
    app.add_routes([web.post("/v1/jobs", constant)])
    app.add_routes([route for route in ROUTES if (route.method, route.path) != ("POST", "/v1/jobs")])
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    main(int(sys.argv[1]))
