"""Answers to requests with a JSON schema: held against it, asked for again once, failed with what is wrong."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from openai import AsyncOpenAI, InternalServerError
from pydantic import BaseModel

from tests.gateway import ADMIN_KEY, Gateway, gateway, until

# A token of output costs 10,000 nano-dollars, one of input 1,000.
CONFIG = """
providers:
  simulated:
    kind: simulated
    base_url: UPSTREAM/v1
    models: {m: {price: {input: 1, output: 10}, max_output: 1000}}
"""
GOOD, BAD = '{"city": "Oslo", "degrees": 7}', '{"city": "Oslo", "degrees": "seven"}'


class Weather(BaseModel):
    city: str
    degrees: int


SCHEMA = Weather.model_json_schema()


PARTS = ("upstream", "api", "maintain", "simulated")


@pytest.fixture(scope="module")
async def sluice(
    tmp_path_factory: pytest.TempPathFactory, module_database: str, redis_url: str
) -> AsyncIterator[Gateway]:
    directory = tmp_path_factory.mktemp("gateway")
    async with gateway(directory, module_database, redis_url, parts=PARTS, config=CONFIG) as running:
        yield running


def chat(*answers: str, key: str, **fields: Any) -> dict[str, Any]:
    return {
        "model": "simulated/m",
        "messages": [{"role": "user", "content": "What is the weather?"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA}},
        "simulate": {"key": key, "answers": list(answers)},
        **fields,
    }


def content(job: Any) -> str:
    return str(job["result"]["choices"][0]["message"]["content"])


async def run(sluice: Gateway, body: dict[str, Any], **options: Any) -> Any:
    status, job, _ = await sluice.ask("POST", "/v1/jobs", {"body": body, **options})
    assert status == 202, job
    return await sluice.ended(job["id"])


# First, for it empties Redis.
@pytest.mark.parametrize(("section", "status"), [("repairs: 0", "failed"), ("check: false", "completed")])
async def test_what_is_done_is_configured(section: str, status: str, tmp_path: Path, database: str, redis: str) -> None:
    config = f"{CONFIG}structured_output: {{{section}}}\n"
    async with gateway(tmp_path, database, redis, parts=PARTS, config=config) as running:
        job = await run(running, chat(BAD, GOOD, key="once"))
        assert (job["status"], job["attempts"]) == (status, 1)
        if status == "completed":
            assert content(job) == BAD


async def test_an_answer_that_fits_counts_at_once(sluice: Gateway) -> None:
    job = await run(sluice, chat(GOOD, key="good"))
    assert (job["status"], job["attempts"], content(job)) == ("completed", 1, GOOD)
    job = await run(sluice, chat(key="imitated"))  # the simulated provider's own answer fits too
    assert (job["status"], job["attempts"]) == ("completed", 1)
    Weather.model_validate_json(content(job))


async def test_an_answer_that_does_not_is_repaired_and_both_calls_are_paid(sluice: Gateway) -> None:
    job = await run(sluice, chat(BAD, GOOD, key="repaired"))
    assert (job["status"], job["attempts"], content(job)) == ("completed", 2, GOOD)
    first, second = await sluice.attempts(job["id"])
    assert (first["status"], first["error"]["code"], first["charged"]) == ("failed", "invalid_output", True)
    assert '$.degrees = "seven": the value is not of type "integer"' in first["error"]["message"]
    assert (second["status"], second["error"]) == ("completed", None)
    # The second call was told what was wrong with the first.
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"] + 20
    costs = [round(float(one["cost_usd"]) * 10**9) for one in (first, second)]
    assert round(float(job["cost_usd"]) * 10**9) == sum(costs)
    assert min(costs) > 0


async def test_a_stream_does_not_close_an_answer_that_is_asked_for_again(sluice: Gateway) -> None:
    job = await run(sluice, chat(BAD, GOOD, key="streamed", stream=True))
    async with sluice.client.get(f"{sluice.url}/v1/jobs/{job['id']}/events") as answer:
        text = (await answer.read()).decode()
    told = [dict(row.split(": ", 1) for row in one.splitlines()) for one in text.strip().split("\n\n")]
    chunks = [orjson.loads(one["data"]) for one in told if one["event"] == "chunk"]
    ends = [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]]
    assert [one["event"] for one in told].count("restarted") == 1
    assert [reason for reason in ends if reason] == ["stop"]
    assert ends[-1] == "stop"


async def test_one_that_never_does_fails_with_what_is_wrong(sluice: Gateway) -> None:
    job = await run(sluice, chat(BAD, "Sorry!", GOOD, key="hopeless"))
    assert (job["status"], job["attempts"], job["result"]) == ("failed", 2, None)
    assert (job["error"]["code"], job["error"]["retriable"]) == ("invalid_output", True)
    assert "it is not JSON" in job["error"]["message"]
    # Run again by its owner, it begins anew, without what was said before.
    status, _, _ = await sluice.ask("POST", f"/v1/jobs/{job['id']}/retry")
    assert status == 202
    job = await sluice.ended(job["id"])
    assert (job["status"], content(job)) == ("completed", GOOD)
    attempts = await sluice.attempts(job["id"])
    assert attempts[2]["usage"]["prompt_tokens"] == attempts[0]["usage"]["prompt_tokens"]


async def test_a_response_is_checked_too(sluice: Gateway) -> None:
    form = {"format": {"type": "json_schema", "name": "weather", "schema": SCHEMA}}
    body = {"model": "simulated/m", "input": "Well?", "text": form, "simulate": {"key": "r", "answers": [BAD, GOOD]}}
    job = await run(sluice, body, url="/v1/responses")
    assert (job["status"], job["attempts"]) == ("completed", 2)
    assert job["result"]["output"][0]["content"][0]["text"] == GOOD


async def test_an_answer_that_was_cut_off_is_not_checked(sluice: Gateway) -> None:
    job = await run(sluice, chat(BAD, key="cut", max_tokens=4))
    assert (job["status"], job["attempts"]) == ("completed", 1)
    assert job["result"]["choices"][0]["finish_reason"] == "length"


async def test_a_repair_is_held_for_and_may_not_cost_more_than_the_job_may(sluice: Gateway) -> None:
    job = await run(sluice, chat(BAD, GOOD, key="rich", max_tokens=100), max_cost_usd="0.01")
    assert (job["status"], job["attempts"]) == ("completed", 2)
    # What it may spend is enough for one call with all its tokens, and then for no second.
    job = await run(sluice, chat(BAD, GOOD, key="poor", max_tokens=100), max_cost_usd="0.0013")
    assert (job["status"], job["error"]["code"]) == ("failed", "max_cost_exceeded")
    assert 0 < float(job["cost_usd"]) <= 0.0013


async def test_a_schema_that_is_none_is_a_fault(sluice: Gateway) -> None:
    body = chat(key="fault")
    body["response_format"]["json_schema"]["schema"] = {"$ref": "https://example.com/schema.json"}
    status, answer, _ = await sluice.ask("POST", "/v1/jobs", {"body": body})
    assert (status, answer["error"]["param"]) == (400, "body.response_format.json_schema.schema")


async def test_the_sdk_parses_what_was_repaired_and_is_told_what_was_not(sluice: Gateway) -> None:
    async with AsyncOpenAI(base_url=sluice.url + "/v1", api_key=ADMIN_KEY) as client:
        asked: Any = {"model": "simulated/m", "messages": [{"role": "user", "content": "Well?"}]}

        def simulated(*answers: str) -> dict[str, Any]:
            return {"simulate": {"key": str(answers), "answers": answers}}

        parsed = await client.chat.completions.parse(**asked, response_format=Weather, extra_body=simulated(BAD, GOOD))
        assert parsed.choices[0].message.parsed == Weather(city="Oslo", degrees=7)
        with pytest.raises(InternalServerError, match="not of type") as caught:
            await client.chat.completions.parse(**asked, response_format=Weather, extra_body=simulated(BAD, BAD))
        assert (caught.value.status_code, caught.value.code) == (502, "invalid_output")
        # What a stream has said cannot be taken back.
        form: Any = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA}}
        stream = await client.chat.completions.create(
            **asked, stream=True, response_format=form, extra_body=simulated(BAD, GOOD, "streamed")
        )
        with pytest.raises(Exception, match="asked for anew"):
            [chunk async for chunk in stream]


# Last, for it ends the pool.
async def test_a_pool_that_ends_gives_back_whose_check_still_waits_with_its_cost(sluice: Gateway) -> None:
    before = len(sluice.calls())
    defs: dict[str, Any] = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)}
    jobs = []
    for number in range(10):  # five seconds of checks, and the pool has one to end in
        body = chat("1", key=f"slow {number}")
        body["response_format"]["json_schema"]["schema"] = {
            "$ref": "#/$defs/d0", "$defs": defs | {"d60": {"type": "string"}}, "title": str(number),
        }  # fmt: skip
        status, job, _ = await sluice.ask("POST", "/v1/jobs", {"body": body})
        assert status == 202, job
        jobs.append(job["id"])

    async def called() -> int:
        return len(sluice.calls()) - before

    await until(called, lambda number: number == len(jobs), what="all called")
    child = sluice.children["simulated"]
    await sluice.kill("simulated", signal.SIGTERM)
    assert child.returncode == 0, sluice.logs()
    found = [await sluice.job(id_) for id_ in jobs]
    assert {job["status"] for job in found} <= {"failed", "queued"}
    waited = [job for job in found if job["status"] == "queued"]
    assert len(waited) >= 3
    attempts = [attempt for job in waited for attempt in await sluice.attempts(job["id"])]
    assert [(one["status"], one["charged"]) for one in attempts] == [("released", False)] * len(waited)
    assert any(float(one["cost_usd"] or 0) > 0 for one in attempts)
