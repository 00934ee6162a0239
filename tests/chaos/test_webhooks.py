"""Receivers of webhooks that hang and fail, and a deliverer that is killed while it sends."""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from tests.chaos.truth import fetch
from tests.gateway import Gateway, gateway, until

pytestmark = pytest.mark.chaos

EACH = 8


class Receiver:
    """Listens on 127.0.0.1. By its path, a first try hangs (`/hang/…`), gets 500 (`/fail/…`) or is answered."""

    def __init__(self) -> None:
        self.tries: dict[str, list[tuple[dict[str, str], bytes]]] = defaultdict(list)
        self.url = ""

    async def receive(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        tries = self.tries[headers["webhook-id"]]
        tries.append((headers, await request.read()))
        if len(tries) == 1:
            match request.match_info["how"]:
                case "hang":
                    await asyncio.Event().wait()
                case "fail":
                    return web.Response(status=500)
        return web.Response(status=204)

    async def received(self) -> int:
        return sum(len(tries) for tries in self.tries.values())


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.add_routes([web.post("/{how}/{number}", made.receive)])
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        await runner.cleanup()


async def submit(sluice: Gateway, target: Receiver, how: str) -> list[str]:
    return [
        await sluice.submit(
            custom_id=f"{how}-{number}", webhook={"url": f"{target.url}/{how}/{number}", "include_result": True}
        )
        for number in range(EACH)
    ]


async def test_every_event_arrives_signed_whatever_the_receiver_does_and_whoever_dies(
    tmp_path: Path, database: str, redis: str
) -> None:
    async with (
        receiver() as target,
        gateway(tmp_path, database, redis, env={"SLUICE_WEBHOOK_TIMEOUT": "1"}) as sluice,
    ):
        _, secret, _ = await sluice.ask("GET", "/v1/webhook_signing_secret")

        made = await submit(sluice, target, "hang")
        await until(target.received, lambda number: number == EACH, what="all hanging")
        await sluice.kill("deliver")
        await sluice.start("deliver")
        for how in ("hang", "fail", "ok"):
            made += await submit(sluice, target, how)
        for id_ in made:  # no job waits for its event, nor for anybody else's
            job = await sluice.ended(id_, seconds=5)
            assert job["status"] == "completed"
        assert await target.received() < 5 * EACH

        async def delivered() -> list[Any]:
            return await fetch(database, "SELECT * FROM deliveries WHERE status = 'delivered'")

        # A killed deliverer's claim runs out after twice the time-out and 10 s; a refusal is tried again after 5 s.
        rows = await until(delivered, lambda rows: len(rows) == len(made), seconds=60, what="all delivered")

        assert sorted(f"job_{row['job_id'].hex}" for row in rows) == sorted(made)
        assert {f"evt_{row['event_id'].hex}" for row in rows} == target.tries.keys()
        for row in rows:
            tries = target.tries[f"evt_{row['event_id'].hex}"]
            assert len(tries) == row["tries"] == (1 if "/ok/" in row["url"] else 2)
            for headers, body in tries:
                Webhook(secret["signing_secret"]).verify(body.decode(), headers)
                event = orjson.loads(body)
                assert (event["id"], event["type"]) == (headers["webhook-id"], "job.completed")
                assert event["data"]["id"] == f"job_{row['job_id'].hex}"
                assert event["data"]["result"]["choices"]
        [count] = await fetch(database, "SELECT count(*) AS all FROM deliveries")
        assert count["all"] == len(made)


async def test_a_deliverer_that_is_killed_again_and_again_loses_nothing_and_repeats_by_id(
    tmp_path: Path, database: str, redis: str
) -> None:
    chance = random.Random(20_311)
    async with (
        receiver() as target,
        gateway(tmp_path, database, redis, env={"SLUICE_WEBHOOK_TIMEOUT": "0.5"}) as sluice,
    ):
        for number in range(3):
            asked = {"url": f"{target.url}/ok/{number}", "name": "r", "event_types": ["job.completed"]}
            status, made, _ = await sluice.ask("POST", "/v1/webhook_endpoints", asked)
            assert status == 200, made
        jobs = []
        for _ in range(4):
            jobs += [await sluice.submit() for _ in range(8)]
            await asyncio.sleep(chance.uniform(0, 0.15))
            await sluice.kill("deliver")
            jobs += [await sluice.submit() for _ in range(4)]
            await sluice.start("deliver")
            before = await target.received()
            await until(target.received, lambda number, before=before: number > before, what="some more")
        expected = 3 * len(jobs)

        async def delivered() -> list[Any]:
            return await fetch(database, "SELECT * FROM deliveries WHERE status = 'delivered'")

        rows = await until(delivered, lambda rows: len(rows) == expected, seconds=60, what="all delivered")

        assert sorted(target.tries) == sorted({f"evt_{row['event_id'].hex}" for row in rows})
        assert len(target.tries) == len(jobs)
        for id_, tries in target.tries.items():
            about = {orjson.loads(body)["data"]["id"] for _, body in tries}
            assert len(about) == 1, id_
            assert len(tries) >= 3
        history = await fetch(database, "SELECT delivery_id, number, status FROM delivery_attempts")
        assert {row["delivery_id"] for row in history if row["status"] == 204} == {row["id"] for row in rows}
