"""What an operator hears of: a refused key, a circuit, a model without a price; and how a key comes back."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from shared import signing
from tests.commands import sluice_command
from tests.gateway import gateway, until

SECRET = signing.new_secret()
CONFIG = """
providers:
  vendor: {kind: openai, base_url: UPSTREAM/v1, keys: [{name: main, value: "sk-hidden-from-everybody"}]}
alerts:
  channels:
    ops: {kind: webhook, url: RECEIVER/ops, secret: SECRET}
    chat: {kind: slack, url: RECEIVER/chat-hidden, kinds: [key.refused]}
"""


class Receiver:
    def __init__(self) -> None:
        self.url = ""
        self.events: list[dict[str, Any]] = []
        self.lines: list[str] = []

    async def ops(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.events.append(Webhook(SECRET).verify(await request.read(), headers))
        return web.Response()

    async def chat(self, request: web.Request) -> web.Response:
        self.lines.append(orjson.loads(await request.read())["text"])
        return web.Response()

    async def kinds(self) -> list[str]:
        return sorted(one["type"] for one in self.events)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.add_routes([web.post("/ops", made.ops), web.post("/chat-hidden", made.chat)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


async def test_a_refused_key_is_heard_of_within_seconds_and_comes_back_when_its_vendor_takes_it(
    tmp_path: Path, database: str, redis: str, receiver: Receiver
) -> None:
    config = CONFIG.replace("RECEIVER", receiver.url).replace("SECRET", SECRET)
    parts, urls = ("upstream", "api", "deliver"), {"DATABASE_URL": database, "REDIS_URL": redis}
    async with gateway(tmp_path, database, redis, parts=parts, config=config) as sluice:
        await sluice.start("vendor", "vendor")
        id_ = await sluice.submit(model="vendor/m", simulate={"fail": [{"status": 401}]})
        assert (await sluice.ended(id_))["error"]["code"] == "invalid_key"
        began = time.monotonic()
        await until(receiver.kinds, lambda kinds: kinds == ["key.refused"], seconds=5, what="the alert")

        # The key is out for five seconds; but its vendor's list of models takes it, so that the next job tries at once.
        id_ = await sluice.submit(model="vendor/m")
        job = await sluice.ended(id_)
        assert (job["status"], job["cost_usd"]) == ("completed", None)
        assert time.monotonic() - began < 4.5

        await sluice.ended(await sluice.submit(model="vendor/m"))
        await until(receiver.kinds, lambda kinds: kinds == ["key.refused", "model.unpriced"], seconds=5)
        assert len(receiver.lines) == 1

        _, page, _ = await sluice.ask("GET", "/v1/admin/alerts")
        assert [one["kind"] for one in page["data"]] == ["model.unpriced", "key.refused"]
        unpriced = page["data"][0]
        assert unpriced["subject"].startswith("vendor/m 20")

        async def pending() -> list[Any]:
            _, listed, _ = await sluice.ask("GET", "/v1/admin/alerts")
            return [one["pending"] for one in listed["data"]]

        await until(pending, lambda found: found == [[], []], seconds=5)
        left = "".join(f"export SLUICE_{name}='{url}'\n" for name, url in urls.items())
        (tmp_path / ".sluice").mkdir()
        (tmp_path / ".sluice" / "env").write_text(left)  # as `sluice up` does
        _, out, _ = await sluice_command(sluice, tmp_path, "doctor")
        assert "alerts: in the last day key.refused (1), model.unpriced (1)" in out
        logs = {path.name: path.read_text() for path in tmp_path.glob("*.log")}
    assert logs["deliver.log"].count("alert.raised") == 2
    assert "deployment.probed" in logs["vendor.log"]
    for name, text in logs.items():
        for hidden in ("sk-hidden", "chat-hidden", SECRET):
            assert hidden not in text, name
    assert "sk-hidden" not in str(receiver.events)


async def test_an_open_circuit_is_heard_of_and_alerts_wait_for_who_tells_them(
    tmp_path: Path, database: str, redis: str, receiver: Receiver
) -> None:
    config = CONFIG.replace("RECEIVER", receiver.url).replace("SECRET", SECRET)
    async with gateway(tmp_path, database, redis, parts=("upstream", "api"), config=config) as sluice:
        await sluice.start("vendor", "vendor")
        control = f"http://127.0.0.1:{sluice.upstream_port}/control"
        async with sluice.client.post(control, json={"dead_seconds": 3, "how": "503"}) as answer:
            assert answer.status == 200
        jobs = [await sluice.submit(model="vendor/m") for _ in range(6)]

        async def stored() -> list[str]:
            _, listed, _ = await sluice.ask("GET", "/v1/admin/alerts")
            return [one["kind"] for one in listed["data"]]

        await until(stored, lambda kinds: kinds == ["circuit.opened"], seconds=10)
        assert receiver.events == []
        await sluice.start("deliver")
        await until(receiver.kinds, lambda kinds: "circuit.opened" in kinds, seconds=5)
        for id_ in jobs:
            assert (await sluice.ended(id_, seconds=30))["status"] == "completed"
