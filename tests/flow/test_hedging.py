"""Interactive jobs whose call is late are called twice, where their model asks for it; the first good answer counts."""

from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.events import chat, said, streamed
from tests.gateway import Gateway, gateway, line, until

CONFIG = """
providers:
  simulated:
    kind: simulated
    base_url: UPSTREAM/v1
    keys: [{name: first, value: sk-1}, {name: second, value: sk-2}]
  single: {kind: simulated, base_url: UPSTREAM/v1, keys: [{name: only, value: sk-3}], limits: {concurrency: 1}}
  other: {kind: openai_compatible, base_url: UPSTREAM/v1, keys: [{name: only, value: sk-3}]}
models:
  quick: {targets: [simulated/m], hedge: {after: 300ms, max_cost_usd: "0.01"}}
  patient: {targets: [simulated/learned], hedge: {max_cost_usd: "0.01"}}
  plain: {targets: [simulated/m]}
  cheap: {targets: [simulated/m], hedge: {after: 300ms, max_cost_usd: "0.0001"}}
  unpriced: {targets: [other/m], hedge: {after: 300ms, max_cost_usd: 1}}
  full: {targets: [single/m], hedge: {after: 300ms, max_cost_usd: 1}}
"""

HANGS_ONCE = {"fail": ["hang"]}


@pytest_asyncio.fixture
async def sluice(tmp_path: Path, database: str, redis: str) -> AsyncIterator[Gateway]:
    parts = ("upstream", "api", "maintain", "simulated")
    async with gateway(tmp_path, database, redis, parts=parts, config=CONFIG) as running:
        yield running


async def submit(sluice: Gateway, model: str, simulate: Mapping[str, Any], **options: Any) -> str:
    return await sluice.submit(model=model, simulate=simulate, **{"priority": "interactive", **options})


async def in_flight(sluice: Gateway) -> int:
    """Return how many calls are under way, as the limits see it."""
    _, listed, _ = await sluice.ask("GET", "/v1/admin/deployments")
    return sum(one["in_flight"] or 0 for one in listed["data"])


async def left_alone(sluice: Gateway, calls: int) -> None:
    """Wait until the upstream has seen so many calls closed before they were answered, and no slot is taken."""

    async def closed() -> int:
        return sluice.upstream_log.read_bytes().count(b"disconnected")

    await until(closed, lambda found: found == calls, what="closed connections")
    await until(lambda: in_flight(sluice), lambda found: found == 0, what="free slots")


async def test_a_call_that_hangs_is_made_again_with_another_key_and_closed(sluice: Gateway) -> None:
    id_ = await submit(sluice, "quick", HANGS_ONCE)
    job = await sluice.ended(id_)
    assert (job["status"], job["attempts"], job["deployment"]) == ("completed", 1, "simulated/m")
    first, second = sluice.calls(id_)
    assert 0.2 <= second["t"] - first["t"] < 2
    await left_alone(sluice, 1)
    [attempt] = await sluice.attempts(id_)
    assert attempt["key"] in ("second+first", "first+second")
    # What the answer says was used, and the prompt once more: the other call may have been charged.
    own = job["result"]["usage"]
    assert attempt["usage_estimated"]
    besides = attempt["usage"]["prompt_tokens"] - own["prompt_tokens"]
    assert abs(besides - own["prompt_tokens"]) <= 1  # it is an estimate
    assert attempt["usage"]["completion_tokens"] == own["completion_tokens"]
    prompts = own["prompt_tokens"] + besides
    assert Decimal(job["cost_usd"]) * 10**6 == Decimal("0.10") * prompts + Decimal("0.40") * own["completion_tokens"]


async def test_a_call_that_answers_in_time_is_not_made_again(sluice: Gateway) -> None:
    id_ = await submit(sluice, "quick", {})
    assert (await sluice.ended(id_))["status"] == "completed"
    [attempt] = await sluice.attempts(id_)
    assert (attempt["key"] in ("first", "second"), attempt["usage_estimated"]) == (True, False)
    assert len(sluice.calls(id_)) == 1


async def test_the_first_answer_counts_also_when_it_is_the_first_calls(sluice: Gateway) -> None:
    id_ = await submit(sluice, "quick", {"latency_ms": 600})
    assert (await sluice.ended(id_))["status"] == "completed"
    assert len(sluice.calls(id_)) == 2
    await left_alone(sluice, 1)


async def test_a_failure_does_not_count_as_long_as_the_other_may_answer(sluice: Gateway) -> None:
    id_ = await submit(sluice, "quick", {"latency_ms": 600, "fail": [{"status": 500}]})
    assert ((await sluice.ended(id_))["status"], len(sluice.calls(id_))) == ("completed", 2)
    [attempt] = await sluice.attempts(id_)
    assert not attempt["usage_estimated"]  # what failed was not charged
    id_ = await submit(sluice, "quick", {"latency_ms": 600, "fail": [{"status": 400}, {"status": 400}]})
    assert (await sluice.ended(id_))["error"]["code"] == "invalid_request"
    assert len(sluice.calls(id_)) == 2


@pytest.mark.parametrize("how", ["standard", "plain", "full", "unpriced"])
async def test_who_does_not_ask_for_it_or_may_not_have_it_is_called_once(sluice: Gateway, how: str) -> None:
    if provider := {"full": "single", "unpriced": "other"}.get(how):
        await sluice.start(provider, provider)
    model, priority = ("quick", "standard") if how == "standard" else (how, "interactive")
    id_ = await submit(sluice, model, {"latency_ms": 900}, priority=priority)
    assert (await sluice.ended(id_))["status"] == "completed"
    assert len(sluice.calls(id_)) == 1


async def test_what_may_cost_more_than_allowed_is_called_once(sluice: Gateway) -> None:
    async def calls(**body: Any) -> int:
        asked = line(model="cheap", simulate={"latency_ms": 900}, priority="interactive")
        status, job, _ = await sluice.ask("POST", "/v1/jobs", {**asked, "body": asked["body"] | body})
        assert status == 202
        assert (await sluice.ended(job["id"]))["status"] == "completed"
        return len(sluice.calls(job["id"]))

    assert await calls() == 1  # nobody knows what it will put out: 500 tokens would cost 0.0002
    assert await calls() == 2  # few, by the one before
    assert await calls(max_tokens=400) == 1


async def test_what_calls_take_is_learned(sluice: Gateway) -> None:
    id_ = await submit(sluice, "patient", {"latency_ms": 1_500})  # one is not enough to go by
    assert ((await sluice.ended(id_))["status"], len(sluice.calls(id_))) == ("completed", 1)
    for _ in range(12):
        await sluice.ended(await submit(sluice, "patient", {"latency_ms": 100}))
    id_ = await submit(sluice, "patient", HANGS_ONCE)
    assert (await sluice.ended(id_))["status"] == "completed"
    first, second = sluice.calls(id_)
    assert 0.1 <= second["t"] - first["t"] < 3


async def test_a_streamed_answer_is_that_of_one_call(sluice: Gateway) -> None:
    body = streamed(fail=["hang"])["body"] | {"model": "quick"}
    status, chunks, headers = await chat(sluice, body)
    assert (status, chunks[-1]) == (200, None)
    assert said(chunks) == "You said 8 words, beginning with: one two three four five six seven eight"
    assert len(sluice.calls(headers["x-sluice-job-id"])) == 2
    await left_alone(sluice, 1)


async def test_two_streams_are_not_mixed_and_one_that_has_begun_is_not_late(sluice: Gateway) -> None:
    body = streamed(latency_ms=600, chunk_ms=80)["body"] | {"model": "quick"}
    status, chunks, headers = await chat(sluice, body)
    assert status == 200
    assert said(chunks) == "You said 8 words, beginning with: one two three four five six seven eight"
    assert len(sluice.calls(headers["x-sluice-job-id"])) == 2
    body = streamed(chunk_ms=200)["body"] | {"model": "quick"}
    status, _, headers = await chat(sluice, body)
    assert (status, len(sluice.calls(headers["x-sluice-job-id"]))) == (200, 1)


async def test_a_cancelled_job_stops_both_calls_and_books_both(sluice: Gateway) -> None:
    id_ = await submit(sluice, "quick", {"fail": ["hang", "hang"]})

    async def calls() -> int:
        return len(sluice.calls(id_))

    await until(calls, lambda found: found == 2)
    await sluice.ask("POST", f"/v1/jobs/{id_}/cancel")
    assert (await sluice.ended(id_))["status"] == "cancelled"
    await left_alone(sluice, 2)
    [attempt] = await sluice.attempts(id_)
    assert "+" in attempt["key"]
    once = await submit(sluice, "plain", HANGS_ONCE)
    await until(lambda: _called(sluice, once))
    await sluice.ask("POST", f"/v1/jobs/{once}/cancel")
    assert (await sluice.ended(once))["status"] == "cancelled"
    [other] = await sluice.attempts(once)
    assert attempt["usage"]["prompt_tokens"] == 2 * other["usage"]["prompt_tokens"]


async def _called(sluice: Gateway, job: str) -> bool:
    return bool(sluice.calls(job))
