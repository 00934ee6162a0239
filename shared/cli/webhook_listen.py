"""A receiver of webhooks for a developer: verifies every event, prints it, and may pass it on to a program."""

import asyncio
import signal
from typing import Any

import aiohttp
import orjson
import typer
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from shared.cli.client import Client, CliError
from shared.cli.output import clean, note

HOST = "127.0.0.1"
LARGEST = 64 * 2**20
FORWARD_SECONDS = 15
_PASSED_ON = ("webhook-id", "webhook-timestamp", "webhook-signature", "content-type")


class Listener:
    """Receives events that are signed with `secret`; `json` prints each as a line of JSON."""

    def __init__(self, client: Client, secret: str, *, forward: str | None, json: bool) -> None:
        self._client = client
        self._secret = secret
        self._forward = forward
        self._json = json
        self._seen: set[str] = set()

    async def run(self, port: int, types: list[str]) -> None:
        """Listen until SIGINT or SIGTERM; with `types` an endpoint is kept for as long. Raises CliError."""
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        if not types:
            self._check(self._secret)
        app = web.Application(client_max_size=LARGEST)
        app.router.add_post("/{path:.*}", self._receive)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        timeout = aiohttp.ClientTimeout(total=FORWARD_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as self._session:
            try:
                await web.TCPSite(runner, HOST, port).start()
                address = f"http://{HOST}:{runner.addresses[0][1]}/"
                await self._listen(address, types, stop)
            except OSError as error:
                raise CliError(f"cannot listen on port {port}: {error.strerror}") from error
            finally:
                await runner.cleanup()

    async def _listen(self, address: str, types: list[str], stop: asyncio.Event) -> None:
        made: dict[str, Any] = {}
        if types:
            asked = {"url": address, "name": "sluice webhooks listen", "event_types": types, "include_result": True}
            made = await self._client.post("/v1/webhook_endpoints", asked)
            self._secret = made["signing_secret"]
        try:
            note(f"listening at {address}" + (f" as {made['id']}" if made else "") + "; interrupt to end")
            await stop.wait()
        finally:
            if made:
                await self._client.delete(f"/v1/webhook_endpoints/{made['id']}")
                note(f"removed {made['id']}")

    def _check(self, secret: str) -> None:
        try:
            Webhook(secret)
        except Exception:
            raise CliError("the secret is not whsec_ and base64") from None

    async def _receive(self, request: web.Request) -> web.Response:
        raw = await request.read()
        try:
            event = Webhook(self._secret).verify(raw, dict(request.headers))
        except (WebhookVerificationError, ValueError) as error:
            note(f"REFUSED  {request.path}: {error}")
            return web.Response(status=401)
        self._print(event, request.headers["webhook-id"])
        if self._forward is None:
            return web.Response(status=204)
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        try:
            async with self._session.post(self._forward, data=raw, headers=headers, allow_redirects=False) as answer:
                note(f"         passed on, answered with {answer.status}")
                return web.Response(status=answer.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            note(f"         not passed on: {error or type(error).__name__}")
            return web.Response(status=502)

    def _print(self, event: Any, id_: str) -> None:
        if self._json:
            typer.echo(orjson.dumps(event).decode())
        else:
            again = "again   " if id_ in self._seen else "verified"
            shown = event.get("data") if isinstance(event, dict) else None
            what = " ".join(str(shown[name]) for name in ("id", "status") if shown.get(name)) if shown else ""
            typer.echo(clean(f"{again} {event.get('type') if isinstance(event, dict) else event} {what} ({id_})"))
        self._seen.add(id_)
