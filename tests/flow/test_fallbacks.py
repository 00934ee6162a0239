"""Jobs that go elsewhere: to a fallback, to another key, away from a lane whose circuit is open."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.events import streamed
from tests.gateway import Gateway, free_port, gateway, line, until

CONFIG = """
providers:
  simulated: {kind: simulated, base_url: UPSTREAM/v1, stall: 500ms}
  dead: {kind: simulated, base_url: "http://127.0.0.1:DEAD/v1"}
  two: {kind: openai_compatible, base_url: UPSTREAM/v1, keys: [{name: first, value: sk-1}, {name: second, value: sk-2}]}
models:
  any: {targets: [dead/m], fallbacks: [simulated/spare]}
  either: {targets: [simulated/a, simulated/b]}
"""


@pytest_asyncio.fixture
async def sluice(tmp_path: Path, database: str, redis: str) -> AsyncIterator[Gateway]:
    parts = ("upstream", "api", "maintain", "simulated")
    config = CONFIG.replace("DEAD", str(free_port()))
    async with gateway(tmp_path, database, redis, parts=parts, config=config) as running:
        yield running


async def deployments(sluice: Gateway) -> dict[str, str]:
    status, listed, _ = await sluice.ask("GET", "/v1/admin/deployments")
    assert status == 200
    return {one["id"]: one["health"] for one in listed["data"]}


async def test_a_job_that_fails_twice_goes_to_the_next_target_and_keeps_its_tries(sluice: Gateway) -> None:
    id_ = await sluice.submit(model="either", simulate={"key": "x", "fail": [{"status": 500}, {"status": 500}]})
    job = await sluice.ended(id_)
    assert (job["status"], job["attempts"], job["deployment"]) == ("completed", 3, "simulated/b")
    assert [call["model"] for call in sluice.calls(id_)] == ["a", "a", "b"]
    assert [attempt["status"] for attempt in await sluice.attempts(id_)] == ["failed", "failed", "completed"]
    # What no target could do better fails at once.
    id_ = await sluice.submit(model="either", simulate={"fail": [{"status": 400}]})
    assert (await sluice.ended(id_))["error"]["code"] == "invalid_request"


async def test_the_jobs_of_a_dead_provider_go_to_its_fallback_and_its_circuit_opens(sluice: Gateway) -> None:
    await sluice.start("dead", "dead")
    lines = [line(model="any", simulate={"latency_ms": 5}) for _ in range(300)]
    status, batch, _ = await sluice.ask("POST", "/v1/batches", {"requests": lines})
    assert status == 202

    async def counts() -> dict[str, int]:
        return dict((await sluice.ask("GET", f"/v1/batches/{batch['id']}"))[1]["request_counts"])

    await until(counts, lambda found: found["completed"] == 300, what="all at the fallback")
    assert {call["model"] for call in sluice.calls()} == {"spare"}
    _, listed, _ = await sluice.ask("GET", f"/v1/jobs?batch_id={batch['id']}&limit=100")
    assert {job["provider"] for job in listed["data"]} == {"simulated"}
    tries = Counter(job["attempts"] for job in listed["data"])
    assert tries[1] > 60, tries  # most were handed over without a call to who is dead
    assert (await deployments(sluice))["dead/m#"] in ("open", "half_open")


async def test_a_refused_key_is_out_and_the_other_goes_on(sluice: Gateway) -> None:
    await sluice.start("two", "two")
    first = await sluice.submit(model="two/m", simulate={"key": "k", "fail": [{"status": 401}]})
    assert (await sluice.ended(first))["status"] == "completed"
    refused, used = (attempt["key"] for attempt in await sluice.attempts(first))
    assert {refused, used} == {"first", "second"}
    health = await deployments(sluice)
    assert (health[f"two/m#{refused}"], health[f"two/m#{used}"]) == ("out", "closed")
    others = [await sluice.submit(model="two/m") for _ in range(6)]
    for id_ in others:
        assert (await sluice.ended(id_))["status"] == "completed"
        assert [attempt["key"] for attempt in await sluice.attempts(id_)] == [used]


async def test_a_stream_that_says_nothing_for_too_long_has_timed_out(sluice: Gateway) -> None:
    status, accepted, _ = await sluice.ask("POST", "/v1/jobs", streamed(chunk_ms=5_000))
    assert status == 202

    async def errors() -> list[str]:
        return [attempt["error"]["code"] for attempt in await sluice.attempts(accepted["id"]) if attempt["error"]]

    assert (await until(errors))[0] == "timeout"
    await sluice.ask("POST", f"/v1/jobs/{accepted['id']}/cancel")
