"""A deliverer against a receiver: what it sends, how often, and what it makes of the answers."""

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import aiohttp
import orjson
import pytest
from aiohttp import web
from sqlalchemy import text
from standardwebhooks import Webhook

from shared import ids, queue, sealing, signing
from shared.config import Webhooks
from shared.db import batches, delivery_history, webhook_secrets
from shared.db import engine as db
from shared.queue import DELIVER_WAKE, Queue
from tests.db.conftest import apply, claimed, end, stored
from tests.gateway import SECRETS_KEY, until
from workers import destination
from workers.deliver import SCHEDULE, Deliverer
from workers.signers import Signers

KEYS = sealing.keys(SECRETS_KEY)
NETWORKS = (ip_network("127.0.0.0/8"),)
TENANT = "default"
_ENDPOINT = text("""
INSERT INTO webhook_endpoints (id, tenant_id, url, name, event_types, include_result, rpm, enabled)
VALUES (:id, 'default', :url, 'n', ARRAY['job.completed', 'webhook_endpoint.disabled'], :include_result, :rpm, :enabled)
""")


class Gate:
    """A receiver whose next answers are listed, then 204; and the deliverer's stores."""

    def __init__(self, engine: db.Engine, line: Queue) -> None:
        self.engine = engine
        self.line = line
        self.client: aiohttp.ClientSession
        self.url = ""
        self.answers: list[web.Response] = []
        self.came: list[tuple[dict[str, str], bytes, float]] = []

    async def receive(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.came.append((headers, await request.read(), time.time()))
        return self.answers.pop(0) if self.answers else web.Response(status=204)

    async def endpoint(self, path: str = "", **fields: Any) -> tuple[UUID, str]:
        id_, secret = ids.new_id(), signing.new_secret()
        values = {"include_result": False, "rpm": None, "enabled": True} | fields
        async with db.transaction(self.engine) as connection:
            await connection.execute(_ENDPOINT, values | {"id": id_, "url": f"{self.url}/{path}"})
            await webhook_secrets.insert(connection, KEYS, TENANT, id_, secret)
        return id_, secret

    async def completed(self, count: int = 1, result: bytes = b'{"answer":1}', **fields: Any) -> list[UUID]:
        jobs = await stored(self.engine, count, **fields)
        _, held = await claimed(self.engine, [one.id for one in jobs])
        await apply(self.engine, *(end(one, result=result) for one in held))
        await self.line.wake(DELIVER_WAKE)
        return [one.id for one in jobs]

    async def deliveries(self) -> list[Any]:
        async with db.transaction(self.engine) as connection:
            return list(await connection.execute(text("SELECT * FROM deliveries ORDER BY id")))

    async def all(self, status: str, count: int) -> list[Any]:
        return await until(
            self.deliveries, lambda found: [one.status for one in found] == [status] * count, seconds=20, what=status
        )

    async def again_now(self) -> None:
        async with db.transaction(self.engine) as connection:
            await connection.execute(text("UPDATE deliveries SET next_at = now() WHERE status = 'pending'"))
        await self.line.wake(DELIVER_WAKE)

    async def tries(self, id_: UUID, count: int) -> list[Any]:
        async def found() -> list[Any]:
            async with db.transaction(self.engine) as connection:
                return list(await delivery_history.attempts_of(connection, TENANT, id_))

        return await until(found, lambda tries: len(tries) == count, seconds=20, what="tries")


@pytest.fixture
async def gate(database: str, redis: str) -> AsyncIterator[Gate]:
    engine, client = db.create(database, pool_size=6, name="test", by_key=True), queue.connect(redis)
    made = Gate(engine, Queue(client))
    app = web.Application()
    app.add_routes([web.post("/{path:.*}", made.receive)])
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with delivering(made):
        yield made
    await runner.cleanup()
    await client.aclose(close_connection_pool=True)
    await engine.dispose()


@asynccontextmanager
async def delivering(gate: Gate) -> AsyncIterator[None]:
    async with destination.session(NETWORKS, limit=50) as client:
        gate.client = client
        webhooks = Webhooks.model_validate({"allow_http": True, "allow_private_networks": ["127.0.0.0/8"]})
        deliverer = Deliverer(
            gate.engine, gate.line, client, webhooks=webhooks, signers=Signers(gate.engine, KEYS), timeout=5
        )
        running = asyncio.create_task(deliverer.run())
        try:
            yield
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


async def test_an_event_says_what_it_is_about_and_carries_the_result_where_that_is_asked_for(gate: Gate) -> None:
    await gate.endpoint("thin")
    await gate.endpoint("full", include_result=True)
    [small] = await gate.completed()
    [large] = await gate.completed(result=orjson.dumps({"text": "x" * 5_000_000}))
    rows = await gate.all("delivered", 4)
    assert len(gate.came) == 4
    for headers, body, _ in gate.came:
        event = orjson.loads(body)
        [of, *_] = [one for one in rows if ids.show("evt", one.event_id) == headers["webhook-id"]]
        assert (event["id"], event["object"], event["type"]) == (headers["webhook-id"], "event", "job.completed")
        assert event["data"]["id"] == ids.show("job", of.job_id)
        assert abs(event["created_at"] - time.time()) < 60
    found = [orjson.loads(body)["data"] for _, body, _ in gate.came]
    of_small = sorted((one["result"] for one in found if one["id"] == ids.show("job", small)), key=str)
    assert of_small == [None, {"answer": 1}]
    cut = [one for one in found if one["id"] == ids.show("job", large) and "truncated" in one]
    assert [(one["result"], one["truncated"], one["result_url"]) for one in cut] == [
        (None, True, f"/v1/jobs/{ids.show('job', large)}")
    ]


async def test_a_refused_event_comes_again_with_its_id_signed_anew_by_the_secrets_of_then(gate: Gate) -> None:
    id_, old = await gate.endpoint()
    gate.answers = [web.Response(status=500, text="not\tnow")]
    await gate.completed()
    [first] = await until(gate.deliveries, lambda found: found and found[0].answer_status)
    assert (first.status, first.tries) == ("pending", 1)
    assert SCHEDULE[0] * 0.8 < (first.next_at - datetime.now(UTC)).total_seconds() < SCHEDULE[0] * 1.2
    new = signing.new_secret()
    async with db.transaction(gate.engine) as connection:
        await webhook_secrets.rotate(connection, KEYS, TENANT, id_, new, overlap=3600)
        await connection.execute(text("UPDATE webhook_endpoints SET updated_at = now()"))
    await gate.again_now()
    [row] = await gate.all("delivered", 1)
    (before, body, _), (after, again, _) = gate.came
    assert before["webhook-id"] == after["webhook-id"]
    assert orjson.loads(body) == orjson.loads(again)
    Webhook(old).verify(body, before)
    for secret in (old, new):
        Webhook(secret).verify(again, after)
    for headers, _, came in gate.came:  # the time of the try: a receiver refuses what is more than 5 minutes old
        assert abs(int(headers["webhook-timestamp"]) - came) < 3
    tries = await gate.tries(row.id, 2)
    assert [(one.number, one.status, one.excerpt) for one in tries] == [(1, 500, "not\tnow"), (2, 204, "")]


async def test_an_endpoint_is_not_sent_more_a_minute_than_it_allows(gate: Gate) -> None:
    await gate.endpoint(rpm=3)
    await gate.completed(8)
    await until(gate.deliveries, lambda found: [one.status for one in found].count("delivered") == 3)
    waiting = [one for one in await gate.deliveries() if one.status == "pending"]
    assert len(gate.came) == 3
    assert len(waiting) == 5
    await gate.endpoint("other")
    await gate.completed()
    await until(gate.deliveries, lambda found: [one.status for one in found].count("delivered") == 4)
    assert all(one.tries == 0 for one in await until(gate.deliveries) if one.status == "pending")


async def test_what_is_for_an_endpoint_that_is_disabled_ends(gate: Gate) -> None:
    here, _ = await gate.endpoint("gone")
    gate.answers = [web.Response(status=410)]
    await gate.completed()
    await until(gate.deliveries, lambda found: found and found[0].status == "disabled")

    async def state() -> Any:
        async with db.transaction(gate.engine) as connection:
            query = text("SELECT enabled, disabled_reason FROM webhook_endpoints WHERE id = :id")
            return tuple((await connection.execute(query, {"id": here})).one())

    assert await state() == (False, "it answered 410 Gone")
    async with db.transaction(gate.engine) as connection:
        [row] = await delivery_history.page(connection, TENANT, delivery_history.DeliveryFilter(), after=None, limit=9)
        await delivery_history.redeliver(connection, TENANT, row.id)  # as if it had been under way
    await gate.line.wake(DELIVER_WAKE)
    found = await gate.all("disabled", 2)
    assert found[1].tries == 0
    assert len(gate.came) == 1


async def test_the_others_are_told_that_an_endpoint_was_disabled(gate: Gate) -> None:
    await gate.endpoint("gone")
    await gate.completed()
    await gate.all("delivered", 1)
    gate.answers = [web.Response(status=410)]
    async with db.transaction(gate.engine) as connection:
        [row] = await delivery_history.page(connection, TENANT, delivery_history.DeliveryFilter(), after=None, limit=9)
        await delivery_history.redeliver(connection, TENANT, row.id)
    await gate.endpoint("watching")
    await gate.line.wake(DELIVER_WAKE)
    told = await until(
        gate.deliveries, lambda found: found[-1].type == "webhook_endpoint.disabled" and found[-1].finished_at
    )
    assert [one.status for one in told] == ["delivered", "disabled", "delivered"]
    assert orjson.loads(gate.came[-1][1])["data"]["reason"] == "it answered 410 Gone"


async def test_what_an_event_was_about_may_be_gone(gate: Gate) -> None:
    id_, _ = await gate.endpoint()
    async with db.transaction(gate.engine) as connection:
        await connection.execute(
            text("""
            INSERT INTO deliveries (id, event_id, tenant_id, endpoint_id, lane, type, job_id)
            VALUES (new_id(), new_id(), 'default', :id, :lane, 'job.completed', new_id())
            """),
            {"id": id_, "lane": id_.hex},
        )
    await gate.line.wake(DELIVER_WAKE)
    [row] = await gate.all("exhausted", 1)
    assert row.answer_error == "what it is about is gone"
    assert gate.came == []


async def test_a_want_of_file_descriptors_is_no_try(gate: Gate) -> None:
    connector: Any = gate.client.connector
    connect, refused = connector._socket_factory, asyncio.Event()

    def none_left(_: object) -> socket.socket:
        refused.set()
        raise OSError(errno.EMFILE, "Too many open files")

    connector._socket_factory = none_left
    await gate.endpoint()
    await gate.completed()
    await asyncio.wait_for(refused.wait(), 10)
    connector._socket_factory = connect
    [row] = await gate.all("delivered", 1)
    assert row.tries == 1
    assert len(await gate.tries(row.id, 1)) == 1


async def test_events_of_batches_say_each_what_it_is_about(gate: Gate) -> None:
    await gate.endpoint()
    await gate.completed(in_batch=True)
    await gate.completed(in_batch=True)
    async with db.transaction(gate.engine) as connection:
        await connection.execute(
            text("""
            INSERT INTO deliveries (id, event_id, tenant_id, endpoint_id, lane, type, batch_id)
            SELECT new_id(), new_id(), e.tenant_id, e.id, replace(e.id::text, '-', ''), 'batch.completed', b.id
            FROM batches b, webhook_endpoints e
            """)
        )
        wanted = [(TENANT, row.id) for row in await connection.execute(text("SELECT id FROM batches"))]
        assert (await batches.of_ids(connection, wanted)).keys() == {id_ for _, id_ in wanted}
        assert await batches.of_ids(connection, [("another", id_) for _, id_ in wanted]) == {}
    await gate.line.wake(DELIVER_WAKE)
    rows = await gate.all("delivered", 4)
    told = {headers["webhook-id"]: orjson.loads(body)["data"]["id"] for headers, body, _ in gate.came}
    about = {ids.show("evt", one.event_id): ids.show("batch", one.batch_id) for one in rows if one.batch_id}
    assert len(about) == 2
    assert about.items() <= told.items()
