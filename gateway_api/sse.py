"""Server-sent events: an answer that goes on, kept alive while there is nothing to say."""

import time
from collections.abc import Mapping

import orjson
from aiohttp import web

from gateway_api.state import request_headers

KEEP_ALIVE_SECONDS = 15.0


class EventStream:
    """A response of server-sent events. Raises ConnectionResetError as soon as the reader has left."""

    def __init__(self, request: web.Request, headers: Mapping[str, str] | None = None) -> None:
        self._request = request
        self._response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            | request_headers(request)
            | dict(headers or {})
        )
        self._said = time.monotonic()

    @property
    def begun(self) -> bool:
        """Whether the status has gone out, so that an error can no longer be one."""
        return self._response.prepared

    async def send(self, value: object, *, event: str = "", id: str = "") -> None:
        """Send one event; waits while the reader is slow."""
        head = (f"event: {event}\n" if event else "") + (f"id: {id}\n" if id else "")
        shown = value if isinstance(value, bytes) else orjson.dumps(value)
        await self._write(head.encode() + b"data: " + shown + b"\n\n")

    async def idle(self) -> None:
        """Say now and then that the answer is still to come; called about once a second."""
        check_reader(self._request)
        if time.monotonic() - self._said > KEEP_ALIVE_SECONDS:
            await self._write(b": still working\n\n")

    async def end(self) -> web.StreamResponse:
        """End the answer."""
        if not self.begun:
            await self._response.prepare(self._request)
        await self._response.write_eof()
        return self._response

    async def _write(self, piece: bytes) -> None:
        if not self.begun:
            await self._response.prepare(self._request)
        await self._response.write(piece)
        self._said = time.monotonic()


def check_reader(request: web.Request) -> None:
    """Raise ConnectionResetError where nobody waits for the answer any more."""
    if request.transport is None or request.transport.is_closing():
        raise ConnectionResetError("the client has left")
