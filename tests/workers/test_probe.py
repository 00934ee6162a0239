"""What is not well is asked after, and nothing else: how often, and what follows from the answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from shared import queue
from shared.config import Provider
from shared.errors import ErrorKind
from shared.limits import deployments_json, key_mark
from shared.queue import Queue
from shared.queue.unwell import Unwell, unwell
from tests.gateway import until
from tests.workers.lanes import TARGET, Lane, deployments, lane_at
from workers import call
from workers.probe import probe, spare

KEYS: list[Any] = [("k", 1, {}, "key:1"), ("spare", 1, {}, "key:2")]


@pytest.fixture
async def lane(redis: str) -> AsyncIterator[Lane]:
    async with lane_at(redis) as found:
        await found.put(1_000)
        yield found


async def ask(lane: Lane, limits: Any = KEYS, **said: Any) -> list[Unwell]:
    # Redis lets its own keys lapse by its own clock, so a look is never too early here.
    await lane.queue.redis.delete("sluice:p:probing")
    return await unwell(lane.queue, "p", limits=deployments(limits), look=1, every=15, **said)


async def say(lane: Lane, one: Unwell, *, well: bool, limits: Any = KEYS) -> None:
    assert await ask(lane, limits, said=(one, well)) == []


async def refuse(lane: Lane, mark: str = "key:1") -> None:
    assert await lane.queue.failed(TARGET, "k", mark=mark)


async def open_circuit(lane: Lane) -> None:
    """Have a circuit open for the second time, so that it is for two seconds."""
    for _ in range(5):
        await lane.queue.failed(TARGET, "k", present="key:1")
    lane.now += 1_001
    [tried] = [one for one in (await lane.claim([KEYS[0]], most=1))[0] if one.key == "k"]
    await lane.queue.failed(TARGET, "k", at=tried.at, present="key:1")


async def health(lane: Lane) -> list[str]:
    return [one.health for one in (await lane.state(KEYS)).deployments]


async def test_what_is_well_is_never_asked_after(lane: Lane) -> None:
    await lane.claim(KEYS)
    for _ in range(3):
        await lane.queue.failed(TARGET, "k", present="key:1")
        await lane.queue.refused(TARGET, "spare", seconds=60)
        lane.now += 20_000
        assert await ask(lane) == []


async def test_a_key_that_is_out_is_asked_after_once_in_a_while_by_all_together(lane: Lane) -> None:
    await refuse(lane)
    assert await ask(lane) == []  # not at once
    lane.now += 1_000
    found = await asyncio.gather(*(ask(lane) for _ in range(8)))
    [one] = [one for some in found for one in some]
    assert (one.key, one.mark, one.at) == ("k", "key:1", lane.now)
    left = await lane.queue.redis.pttl("sluice:p:probe:k:key:1")
    assert 14_000 < left <= 15_000


async def test_of_all_who_look_one_does(lane: Lane) -> None:
    await refuse(lane)
    lane.now += 1_000
    await ask(lane)
    await lane.queue.redis.delete("sluice:p:probe:k:key:1")
    assert await unwell(lane.queue, "p", limits=deployments(KEYS), look=1, every=15) == []
    assert 0 < await lane.queue.redis.pttl("sluice:p:probing") <= 1_000


async def test_a_good_answer_lets_one_job_try_the_key_at_once(lane: Lane) -> None:
    await refuse(lane)
    assert (await lane.claim([KEYS[0]]))[0] == []
    lane.now += 1_000
    [one] = await ask(lane)
    await say(lane, one, well=True)
    assert await health(lane) == ["half_open", "closed"]
    tried, _ = await lane.claim([KEYS[0]])
    assert [job.key for job in tried] == ["k"]
    await lane.done(tried, ms=100)
    assert await health(lane) == ["closed", "closed"]


async def test_a_key_that_is_refused_again_stays_out_and_no_job_tries_it(lane: Lane) -> None:
    await refuse(lane)
    lane.now += 1_000
    for _ in range(20):
        [one] = await ask(lane)
        await say(lane, one, well=False)
        await lane.queue.redis.delete("sluice:p:probe:k:key:1")
        lane.now += 15_000
        assert (await lane.claim([KEYS[0]]))[0] == []
        assert await health(lane) == ["out", "closed"]
    # But not for ever: a key may be good for everything but a list of models.
    lane.now += 300_000
    [one] = await ask(lane)
    await say(lane, one, well=False)
    assert len((await lane.claim([KEYS[0]]))[0]) == 1


async def test_a_circuit_waits_no_longer_once_its_provider_answers(lane: Lane) -> None:
    await open_circuit(lane)
    lane.now += 1_000
    assert await health(lane) == ["open", "closed"]
    [one] = await ask(lane)
    await say(lane, one, well=False)  # of a circuit a refusal says nothing
    assert await health(lane) == ["open", "closed"]
    await say(lane, one, well=True)
    assert await health(lane) == ["half_open", "closed"]
    assert len((await lane.claim([KEYS[0]]))[0]) == 1


async def test_an_answer_that_is_older_than_the_fault_says_nothing_of_it(lane: Lane) -> None:
    await refuse(lane)
    lane.now += 6_000
    [one] = await ask(lane)
    [tried] = (await lane.claim([KEYS[0]]))[0]
    lane.now += 100
    await lane.queue.failed(TARGET, "k", mark="key:1", at=tried.at)
    await say(lane, one, well=True)
    assert await health(lane) == ["out", "closed"]
    await say(lane, one._replace(mark="key:other", at=lane.now), well=True)
    assert await health(lane) == ["out", "closed"]


async def test_what_a_job_tries_just_now_is_left_alone(lane: Lane) -> None:
    await refuse(lane)
    lane.now += 6_000
    assert len((await lane.claim([KEYS[0]]))[0]) == 1
    assert await ask(lane) == []


async def test_a_key_of_another_value_is_not_asked_after(lane: Lane) -> None:
    await refuse(lane, "key:0")
    lane.now += 1_000
    assert await ask(lane) == []


# ------------------------------------------------------------------ with a vendor


@dataclass
class Vendor:
    """A list of models that answers as it is told to, and notes who asked."""

    url: str = ""
    status: int = 200
    asked: list[str] = field(default_factory=list)

    async def models(self, request: web.Request) -> web.Response:
        self.asked.append(request.headers.get("authorization", ""))
        headers = {"location": f"{self.url}/elsewhere"} if self.status == 302 else {}
        return web.Response(status=self.status, headers=headers)


@pytest.fixture
async def vendor() -> AsyncIterator[Vendor]:
    made = Vendor()
    app = web.Application()
    app.add_routes([web.get("/v1/models", made.models), web.get("/v1/elsewhere", made.models)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield made
    await runner.cleanup()


@asynccontextmanager
async def probing(redis: str, vendor: Vendor, kind: str = "openai") -> AsyncIterator[tuple[Queue, Provider]]:
    keys = [{"name": name, "value": f"secret-{name}"} for name in ("k", "spare")]
    provider = Provider.model_validate({"kind": kind, "base_url": vendor.url, "keys": keys})
    client = queue.connect(redis)
    line = Queue(client)
    async with call.session(connections=4, connect_timeout=5) as session:
        running = asyncio.create_task(probe(line, session, provider, name="p"))
        try:
            yield line, provider
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await client.aclose(close_connection_pool=True)


async def out_and_seen(line: Queue, provider: Provider) -> None:
    """Have the first key be refused, on a lane that jobs were in."""
    mark = key_mark(provider.keys[0].value)
    await line.redis.zadd("sluice:p:seen", {"m": 1})
    assert await line.failed(TARGET, "k", mark=mark)


async def state_of(line: Queue, provider: Provider) -> str:
    found = await line.survey("p", ["m"], limits=deployments_json(provider))
    return found["m"].deployments[0].health


@pytest.mark.parametrize(("status", "expected"), [(200, "half_open"), (401, "out"), (403, "out"), (302, "out")])
async def test_a_vendor_is_asked_with_the_key_that_is_out(
    redis: str, vendor: Vendor, status: int, expected: str
) -> None:
    vendor.status = status
    async with probing(redis, vendor) as (line, provider):
        await out_and_seen(line, provider)

        async def asked() -> int:
            return len(vendor.asked)

        await until(asked, seconds=10)

        async def health() -> str:
            return await state_of(line, provider)

        await until(health, lambda found: found == expected, seconds=2)
        opened = float(await line.redis.hget("sluice:p:bucket:m:k", "opened"))  # type: ignore[misc, arg-type]
        open_until = float(await line.redis.hget("sluice:p:bucket:m:k", "open"))  # type: ignore[misc, arg-type]
    assert vendor.asked == ["Bearer secret-k"]
    assert (open_until - opened > 20_000) == (status == 401)


async def test_a_kind_without_a_free_list_is_not_asked(redis: str, vendor: Vendor) -> None:
    async with probing(redis, vendor, "openai_compatible") as (line, provider):
        await out_and_seen(line, provider)
        async with call.session(connections=1, connect_timeout=5) as session:
            await asyncio.wait_for(probe(line, session, provider, name="p"), 5)
    assert vendor.asked == []


async def test_a_key_without_quota_is_spared(lane: Lane) -> None:
    keys = [{"name": "k", "value": "secret"}]
    provider = Provider.model_validate({"kind": "openai", "keys": keys})
    mark = key_mark(provider.keys[0].value)
    await spare(lane.queue, provider, "k", ErrorKind.QUOTA_EXHAUSTED, name="p")
    await refuse(lane, mark)
    lane.now += 1_000
    assert await ask(lane, [("k", 1, {}, mark)]) == []
    await lane.queue.redis.delete(f"sluice:p:probe:k:{mark}")
    await spare(lane.queue, provider, "k", ErrorKind.INVALID_KEY, name="p")
    assert len(await ask(lane, [("k", 1, {}, mark)])) == 1
