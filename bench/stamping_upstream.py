"""A provider whose streamed chunks say when they were sent: `python -m bench.stamping_upstream PORT`."""

import asyncio
import sys
import time

import orjson
import uvloop
from aiohttp import web

CHUNKS = 50
BETWEEN_SECONDS = 0.02


async def chat(request: web.Request) -> web.StreamResponse:
    await request.read()
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for number in range(CHUNKS):
        await asyncio.sleep(BETWEEN_SECONDS)
        end = "stop" if number == CHUNKS - 1 else None
        chunk = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "model": "m",
            "sent": time.time(),
            "choices": [{"index": 0, "delta": {"content": f"word{number} "}, "finish_reason": end}],
        }
        await response.write(b"data: " + orjson.dumps(chunk) + b"\n\n")
    usage = {"prompt_tokens": 3, "completion_tokens": CHUNKS}
    await response.write(b"data: " + orjson.dumps({"id": "chatcmpl-1", "choices": [], "usage": usage}) + b"\n\n")
    await response.write(b"data: [DONE]\n\n")
    return response


def main(port: int) -> None:
    uvloop.install()
    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", chat)])
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    main(int(sys.argv[1]))
