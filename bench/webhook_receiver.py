"""A receiver of webhooks in a process of its own: `/ok/…` is answered, `/hang/…` never. `GET /` tells who came when."""

import asyncio
import time

import orjson
import uvloop
from aiohttp import web

came: list[tuple[str, float]] = []


async def receive(request: web.Request) -> web.Response:
    await request.read()
    if request.match_info["how"] == "hang":
        await asyncio.Event().wait()
    came.append((request.headers["webhook-id"], time.time()))
    return web.Response(status=204)


async def told(request: web.Request) -> web.Response:
    after = int(request.query.get("after", "0"))
    if "count" in request.query:
        return web.json_response(len(came))
    return web.Response(body=orjson.dumps(came[after:]), content_type="application/json")


async def main() -> None:
    app = web.Application()
    app.add_routes([web.get("/", told), web.post("/{how}/{number}", receive)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
