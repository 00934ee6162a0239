"""A receiver of Sluice's webhooks: verifies each event, answers at once, works afterwards, and drops repeats.

    pip install aiohttp standardwebhooks
    WEBHOOK_SECRET=whsec_... python receiver.py 9900

It prints a line of JSON for each new event. `seen` is in memory here: a real receiver notes `webhook-id` in its
database, in the transaction of what the event leads to, so that a repeat after a restart is one too.
"""

import asyncio
import json
import os
import sys
from collections import OrderedDict
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

MOST_SEEN = 100_000
LARGEST = 64 * 2**20


class Receiver:
    """Takes events in at `/`, several at once, and handles them one after another."""

    def __init__(self, secret: str) -> None:
        self.webhook = Webhook(secret)
        self.seen: OrderedDict[str, None] = OrderedDict()
        self.waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=1_000)

    async def receive(self, request: web.Request) -> web.Response:
        body = await request.read()  # the bytes as they came: what a parser would write again is signed differently
        try:
            event = self.webhook.verify(body, dict(request.headers))  # also refuses what is older than five minutes
        except (WebhookVerificationError, ValueError):
            return web.Response(status=401)
        id_ = request.headers["webhook-id"]
        if id_ not in self.seen:
            try:
                self.waiting.put_nowait(event)
            except asyncio.QueueFull:
                return web.Response(status=503)  # it comes again
            self.seen[id_] = None
            if len(self.seen) > MOST_SEEN:
                self.seen.popitem(last=False)
        return web.Response(status=204)

    async def work(self) -> None:
        while True:
            event = await self.waiting.get()
            print(json.dumps({"type": event["type"], "id": event["data"].get("id")}), flush=True)


async def serve(port: int) -> None:
    secret = os.environ.get("WEBHOOK_SECRET", "")
    if not secret.startswith("whsec_"):
        sys.exit("Set WEBHOOK_SECRET to the endpoint's signing secret, whsec_...")
    receiver = Receiver(secret)
    app = web.Application(client_max_size=LARGEST)
    app.router.add_post("/", receiver.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await receiver.work()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
