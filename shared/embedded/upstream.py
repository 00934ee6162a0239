"""The simulated provider as a process: an OpenAI-compatible server over `shared/simulation.py`.

It logs each call it receives before it answers, so that a test knows what really went out.
"""

import argparse
import asyncio
import contextlib
import math
import signal
import time
from collections import OrderedDict
from dataclasses import fields, replace
from pathlib import Path
from typing import IO

import orjson
import uvloop
from aiohttp import web

from shared import simulation, tokens
from shared.embedded.buckets import Limits
from shared.embedded.tally import How, Tally
from shared.simulation import Behaviour, Reply

REMEMBERED = 100_000
LARGEST_BODY = 64 * 2**20

_FAILURES: dict[How, Reply] = {
    "reset": Reply(200, b"", fault="reset"),
    "503": simulation.refusal(503),
    "hang": Reply(200, b"", fault="hang"),
}
"""How a dead provider answers."""


class Upstream:
    """The server's memory: how often each request was seen, what its limits still admit, what was answered."""

    def __init__(self, behaviour: Behaviour, limits: Limits, log: IO[bytes] | None, *, headers: bool = True) -> None:
        self._behaviour = behaviour
        self._limits = limits
        self._log = log
        self._headers = headers
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._tally = Tally()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a call, after its latency."""
        raw = await request.read()
        id_ = request.headers.get("x-client-request-id")
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        self._tally.received(key)
        number = self._tally.all.calls
        try:
            reply = self._reply(request.path, raw, id_, key)
            if reply.latency:
                await asyncio.sleep(reply.latency)
                if death := self._tally.dead():
                    reply = _FAILURES[death.how]
            reply = replace(reply, headers={"x-request-id": f"req_sim_{number}", **reply.headers})
            if reply.pieces:
                return await self._stream(request, reply, key)
            if reply.fault is not None:
                return await _break_off(request, reply)
            self._tally.answered(key, reply.status)
            headers = {"content-type": "application/json", **reply.headers}
            return web.Response(body=reply.body, status=reply.status, headers=headers)
        except asyncio.CancelledError:
            self._tally.disconnected += 1
            self._write({"id": id_, "event": "disconnected"})
            raise
        finally:
            self._tally.in_flight -= 1

    async def _stream(self, request: web.Request, reply: Reply, key: str) -> web.StreamResponse:
        response = web.StreamResponse(headers=reply.headers)
        await response.prepare(request)
        for piece in reply.pieces:
            try:
                await response.write(piece)
            except ConnectionResetError:
                raise asyncio.CancelledError from None  # the caller has left
            if reply.between:
                await asyncio.sleep(reply.between)
            if self._tally.dead():
                _transport(request).abort()
                return response
        if reply.fault is not None:
            _transport(request).abort()
        self._tally.answered(key, 200)
        return response

    def _reply(self, path: str, raw: bytes, id_: str | None, key: str) -> Reply:
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError:
            body = None
        good = isinstance(body, dict)
        same = simulation.identity(body, raw) if good else ""
        seen = self._note(same) if good else 0
        self._write({"t": time.time(), "id": id_, "model": body.get("model") if good else None, "n": seen})
        if death := self._tally.dead():
            death.calls += 1
            return _FAILURES[death.how]
        if not good:
            return simulation.refusal(400)
        reply = simulation.reply(self._behaviour, path, body, seen=seen, same=same)
        refusal = self._limits.admit(reply.tokens)
        self._tally.judged(key, refused=refusal is not None, tokens=reply.tokens)
        if refusal is not None:
            reply = simulation.refusal(429, retry_after=refusal.seconds, lacking=refusal.lacking)
            reply.headers["retry-after-ms"] = str(math.ceil(1000 * refusal.seconds))
        return replace(reply, headers={**reply.headers, **self._limits.headers()}) if self._headers else reply

    def _note(self, same: str) -> int:
        """Return how often a request was seen before, and remember that it was seen once more."""
        seen = self._seen.pop(same, 0)
        self._seen[same] = seen + 1
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return seen

    def _write(self, event: dict[str, object]) -> None:
        if self._log is not None:
            self._log.write(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE))
            self._log.flush()

    async def models(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/models`: asks for no key, but fails where every call does."""
        if death := self._tally.dead():
            reply = _FAILURES[death.how]
            broken = reply.fault is not None
            return await _break_off(request, reply) if broken else web.Response(status=reply.status)
        return web.json_response({"object": "list", "data": [{"id": "simulated", "object": "model"}]})

    async def stats(self, _: web.Request) -> web.Response:
        """`GET /stats`."""
        return web.json_response(self._tally.shown())

    async def control(self, request: web.Request) -> web.Response:
        """`POST /control`: `{"dead_seconds": 10, "how": "reset | 503 | hang"}` lets every call for so long fail."""
        match await request.json():
            case {"dead_seconds": int() | float() as seconds, **rest} if seconds >= 0:
                how = rest.get("how", "reset")
                if how in _FAILURES and rest.keys() <= {"how"}:
                    self._tally.die(seconds, how)
                    return web.json_response(self._tally.shown())
        return web.json_response({"error": "must be dead_seconds, and how: reset, 503 or hang"}, status=400)


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
            web.post("/control", upstream.control),
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
    parser.add_argument("--rpm", type=float, default=0.0, help="requests a minute; 0: no limit")
    parser.add_argument("--burst", type=float, default=1.0, help="requests at once")
    parser.add_argument("--tpm", type=float, default=0.0, help="tokens a minute, in and out together; 0: no limit")
    parser.add_argument("--token-burst", type=float, default=0.0, help="tokens at once; 0: what a second holds")
    parser.add_argument(
        "--headers", action=argparse.BooleanOptionalAction, default=True, help="tell of the limits in x-ratelimit-*"
    )
    for one in fields(Behaviour):
        parser.add_argument(f"--{one.name.replace('_', '-')}", type=type(one.default), default=one.default)
    chosen = vars(parser.parse_args())
    behaviour = Behaviour(**{one.name: chosen[one.name] for one in fields(Behaviour)})
    tokens.load()
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(chosen["log"].open("ab")) if chosen["log"] else None
        limits = Limits(**{name: chosen[name] for name in ("rpm", "burst", "tpm", "token_burst")})
        upstream = Upstream(behaviour, limits, log, headers=chosen["headers"])
        uvloop.run(serve(upstream, chosen["host"], chosen["port"]))


if __name__ == "__main__":
    main()
