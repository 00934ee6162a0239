"""The simulated provider as a process: an OpenAI-compatible server over `shared/simulation.py`.

It logs each call it receives before it answers, so that a test knows what really went out.
"""

import argparse
import asyncio
import contextlib
import signal
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO

import orjson
import uvloop
from aiohttp import web

from shared import simulation, tokens
from shared.simulation import Behaviour, Reply

REMEMBERED = 100_000
LARGEST_BODY = 64 * 2**20


@dataclass(slots=True)
class Bucket:
    """A token bucket for requests: `rpm` a minute, `burst` (1 at least) at once. 0 requests a minute: no limit."""

    rpm: float
    burst: float
    level: float = field(init=False)
    at: float = field(init=False)

    def __post_init__(self) -> None:
        self.level = self.burst = max(self.burst, 1.0)
        self.at = time.monotonic()

    def refused_for(self) -> float:
        """Take a token; return 0, or the seconds until there is one."""
        if not self.rpm:
            return 0.0
        now = time.monotonic()
        self.level = min(self.burst, self.level + (now - self.at) * self.rpm / 60)
        self.at = now
        if self.level >= 1:
            self.level -= 1
            return 0.0
        return (1 - self.level) * 60 / self.rpm


class Upstream:
    """The server's memory: how often each request was seen, what was answered, who is being served."""

    def __init__(self, behaviour: Behaviour, bucket: Bucket, log: IO[bytes] | None) -> None:
        self._behaviour = behaviour
        self._bucket = bucket
        self._log = log
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._calls = self._in_flight = self._peak = self._disconnected = 0
        self._by_status: Counter[int] = Counter()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a call, after its latency."""
        raw = await request.read()
        id_ = request.headers.get("x-client-request-id")
        self._calls += 1
        number = self._calls
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)
        try:
            reply = self._reply(request.path, raw, id_)
            if reply.latency:
                await asyncio.sleep(reply.latency)
            if reply.pieces:
                return await self._stream(request, reply)
            if reply.fault is not None:
                return await _break_off(request, reply)
            self._by_status[reply.status] += 1
            headers = {"content-type": "application/json", "x-request-id": f"req_sim_{number}", **reply.headers}
            return web.Response(body=reply.body, status=reply.status, headers=headers)
        except asyncio.CancelledError:
            self._disconnected += 1
            self._write({"id": id_, "event": "disconnected"})
            raise
        finally:
            self._in_flight -= 1

    async def _stream(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        response = web.StreamResponse(headers={"x-request-id": f"req_sim_{self._calls}", **reply.headers})
        await response.prepare(request)
        for piece in reply.pieces:
            try:
                await response.write(piece)
            except ConnectionResetError:
                raise asyncio.CancelledError from None  # the caller has left
            if reply.between:
                await asyncio.sleep(reply.between)
        if reply.fault is not None:
            _transport(request).abort()
        self._by_status[200] += 1
        return response

    def _reply(self, path: str, raw: bytes, id_: str | None) -> Reply:
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError:
            body = None
        if not isinstance(body, dict):
            self._write({"t": time.time(), "id": id_, "model": None, "n": 0})
            return simulation.refusal(400)
        same = simulation.identity(body, raw)
        seen = self._seen.pop(same, 0)
        self._seen[same] = seen + 1
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        self._write({"t": time.time(), "id": id_, "model": body.get("model"), "n": seen})
        wait = self._bucket.refused_for()
        if wait:
            return simulation.refusal(429, retry_after=wait)
        return simulation.reply(self._behaviour, path, body, seen=seen, same=same)

    def _write(self, event: dict[str, object]) -> None:
        if self._log is not None:
            self._log.write(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE))
            self._log.flush()

    async def models(self, _: web.Request) -> web.Response:
        """`GET /v1/models`."""
        return web.json_response({"object": "list", "data": [{"id": "simulated", "object": "model"}]})

    async def stats(self, _: web.Request) -> web.Response:
        """`GET /stats`."""
        return web.json_response(
            {
                "calls": self._calls,
                "answered": sum(self._by_status.values()),
                "by_status": {str(status): count for status, count in self._by_status.items()},
                "disconnected": self._disconnected,
                "in_flight": self._in_flight,
                "peak_in_flight": self._peak,
            }
        )


async def _break_off(request: web.Request, reply: Reply) -> web.StreamResponse:
    """Let an answer end badly: never, with a reset connection, or in the middle."""
    if reply.fault == "hang":
        await asyncio.Event().wait()
    if reply.fault == "reset":
        _transport(request).abort()
        return web.Response()
    cut = web.StreamResponse(headers={"content-length": "1000", "content-type": "application/json"})
    await cut.prepare(request)
    await cut.write(reply.body)
    _transport(request).close()
    return cut


def _transport(request: web.Request) -> asyncio.Transport:
    if request.transport is None:  # the client went away
        raise ConnectionResetError
    return request.transport


async def serve(upstream: Upstream, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM; the address is the first line printed."""
    app = web.Application(client_max_size=LARGEST_BODY)
    app.add_routes(
        [
            web.post("/v1/chat/completions", upstream.answer),
            web.post("/v1/embeddings", upstream.answer),
            web.get("/v1/models", upstream.models),
            web.get("/stats", upstream.stats),
        ]
    )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, host, port, backlog=4096).start()
    print(f"listening on http://{host}:{runner.addresses[0][1]}", flush=True)
    await stop.wait()
    await runner.cleanup()


def main() -> None:
    """Entry of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9099)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--rpm", type=float, default=0.0)
    parser.add_argument("--burst", type=float, default=1.0)
    for one in fields(Behaviour):
        parser.add_argument(f"--{one.name.replace('_', '-')}", type=type(one.default), default=one.default)
    chosen = vars(parser.parse_args())
    behaviour = Behaviour(**{one.name: chosen[one.name] for one in fields(Behaviour)})
    tokens.load()
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(chosen["log"].open("ab")) if chosen["log"] else None
        upstream = Upstream(behaviour, Bucket(chosen["rpm"], chosen["burst"]), log)
        uvloop.run(serve(upstream, chosen["host"], chosen["port"]))


if __name__ == "__main__":
    main()
