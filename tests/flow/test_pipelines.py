"""Pipelines: lines of a batch that wait for others of it and are filled in with what these answered."""

from typing import Any

import asyncpg
import orjson
import pytest
from redis.asyncio import Redis

from shared import ids
from tests.conftest import fresh_database
from tests.flow.test_batch_files import CONFIG, create, ended, jsonl, look, read
from tests.gateway import Gateway, gateway, line, until


@pytest.fixture(scope="module")
async def sluice(tmp_path_factory: pytest.TempPathFactory, database_url: str, template: str, redis_url: str) -> Any:
    async with (
        fresh_database(database_url, template) as database,
        gateway(tmp_path_factory.mktemp("pipelines"), database, redis_url, config=CONFIG) as running,
    ):
        yield running


def reduce(names: list[str], **options: Any) -> dict[str, Any]:
    text = "Put together: " + " | ".join(f"{{{{jobs.{name}.output}}}}" for name in names)
    return line(custom_id="whole", text=text, depends_on=names, **options)


async def submit(sluice: Gateway, lines: list[Any], **options: Any) -> Any:
    status, batch, _ = await sluice.ask("POST", "/v1/batches", {"requests": lines, **options})
    assert status == 202, batch
    return batch


async def value(sluice: Gateway, query: str, job: str) -> Any:
    """Return what a query says of a job."""
    connection = await asyncpg.connect(sluice.env["SLUICE_DATABASE_URL"])
    try:
        return await connection.fetchval(query, ids.parse("job", job))
    finally:
        await connection.close()


async def asked(sluice: Gateway, job: str) -> str:
    """Return the text that a job's call asked."""
    body = await value(sluice, "SELECT body FROM payloads WHERE job_id = $1", job)
    return str(orjson.loads(body)["messages"][-1]["content"])


async def jobs(sluice: Gateway, batch: str) -> dict[str, Any]:
    _, listed, _ = await sluice.ask("GET", f"/v1/jobs?batch_id={batch}&limit=100")
    return {one["custom_id"]: one for one in listed["data"]}


async def texts(sluice: Gateway, batch: Any) -> dict[str, str]:
    done = await ended(sluice, batch["id"])
    lines = await read(sluice, done["output_file_id"])
    return {one["custom_id"]: one["response"]["body"]["choices"][0]["message"]["content"] for one in lines}


@pytest.mark.parametrize("from_file", [False, True])
async def test_a_book_is_summarized_chunk_by_chunk_and_then_as_a_whole(sluice: Gateway, from_file: bool) -> None:
    names = [f"chunk-{number}" for number in range(12)]
    lines = [reduce(names), *(line(custom_id=name, text=f"Summarize {name}") for name in names)]
    batch = await (create(sluice, jsonl(lines)) if from_file else submit(sluice, lines))
    answered = await texts(sluice, batch)
    assert set(answered) == {*names, "whole"}
    made = await jobs(sluice, batch["id"])
    assert made["whole"]["started_at"] > max(made[name]["finished_at"] for name in names)
    assert len(sluice.calls(made["whole"]["id"])) == 1
    assert await asked(sluice, made["whole"]["id"]) == "Put together: " + " | ".join(answered[name] for name in names)


async def test_one_after_another_and_the_waiting_are_not_ahead(sluice: Gateway) -> None:
    lines = [line(custom_id="a", simulate={"latency_ms": 300})]
    for before, name in (("a", "b"), ("b", "c"), ("c", "d")):
        lines.append(line(custom_id=name, text=f"{{{{jobs.{before}.output}}}}", depends_on=[before]))
    batch = await submit(sluice, lines[::-1])
    waiting = (await jobs(sluice, batch["id"]))["d"]
    assert waiting["status"] == "queued"
    assert (await ended(sluice, batch["id"]))["status"] == "completed"
    made = await jobs(sluice, batch["id"])
    starts = [made[name]["started_at"] for name in "abcd"]
    assert starts == sorted(starts)


async def test_who_waits_for_a_failed_job_fails_or_goes_on(sluice: Gateway) -> None:
    bad = line(custom_id="bad", simulate={"fail": [{"status": 400}]})
    good = line(custom_id="good", text="fine")
    strict = reduce(["bad", "good"])
    lenient = {**reduce(["bad", "good"], on_dependency_failure="continue"), "custom_id": "lenient"}
    after = line(custom_id="after", text="x", depends_on=["whole"])
    batch = await ended(sluice, (await submit(sluice, [bad, good, strict, lenient, after]))["id"])
    assert (batch["request_counts"]["completed"], batch["request_counts"]["failed"]) == (2, 3)
    errors = {one["custom_id"]: one["error"] for one in await read(sluice, batch["error_file_id"])}
    assert errors["whole"]["code"] == errors["after"]["code"] == "dependency_failed"
    assert "'bad'" in errors["whole"]["message"]
    made = await jobs(sluice, batch["id"])
    assert (await asked(sluice, made["lenient"]["id"])).startswith("Put together:  | ")
    assert sluice.calls(made["whole"]["id"]) == []

    # Run again, the failed one fails no more, and who failed for it waits for it once more.
    status, _, _ = await sluice.ask("POST", f"/v1/batches/{batch['id']}/retry")
    assert status == 202
    batch = await ended(sluice, batch["id"])
    assert batch["request_counts"]["completed"] == 5
    made = await jobs(sluice, batch["id"])
    assert made["whole"]["started_at"] > made["bad"]["finished_at"]
    assert made["after"]["started_at"] > made["whole"]["finished_at"]


async def test_answers_are_counted_once_however_often_a_job_runs(sluice: Gateway) -> None:
    estimate = "SELECT input_estimate FROM jobs WHERE id = $1"
    lines = [
        line(custom_id="long", simulate={"output_tokens": 400}),
        reduce(["long"], simulate={"fail": 9 * [{"status": 400}]}),
    ]
    batch = await ended(sluice, (await submit(sluice, lines))["id"])
    whole = (await jobs(sluice, batch["id"]))["whole"]
    first = await value(sluice, estimate, whole["id"])
    assert first > 20
    for _ in range(2):
        await sluice.ask("POST", f"/v1/batches/{batch['id']}/retry")
        await ended(sluice, batch["id"])
    assert (await sluice.job(whole["id"]))["attempts"] == 3
    assert await value(sluice, estimate, whole["id"]) == first


async def test_cancelling_ends_who_waits_too(sluice: Gateway) -> None:
    lines = [line(custom_id="never", model="idle/any"), reduce(["never"])]
    batch = await submit(sluice, lines)
    await sluice.ask("POST", f"/v1/batches/{batch['id']}/cancel")
    batch = await ended(sluice, batch["id"])
    assert (batch["status"], batch["request_counts"]["cancelled"]) == ("cancelled", 2)


async def test_emptying_redis_lets_nobody_go_too_early(sluice: Gateway) -> None:
    lines = [line(custom_id="slow", simulate={"latency_ms": 2_000}), reduce(["slow"])]
    batch = await submit(sluice, lines)
    await until(lambda: look(sluice, batch["id"]), lambda one: one["status"] == "in_progress")
    redis = Redis.from_url(sluice.env["SLUICE_REDIS_URL"])
    await redis.flushdb()
    await redis.aclose()
    assert (await ended(sluice, batch["id"]))["request_counts"]["completed"] == 2
    made = await jobs(sluice, batch["id"])
    assert made["whole"]["started_at"] > made["slow"]["finished_at"]
    assert len(sluice.calls(made["whole"]["id"])) == 1


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([reduce(["nobody"])], "unknown_dependency"),
        (
            [line(custom_id="a"), line(custom_id="b", text="{{ jobs.a.output }}", depends_on=["c"])],
            "unknown_dependency",
        ),
        ([line(custom_id="a", depends_on=["b"]), line(custom_id="b", depends_on=["a"])], "circular_dependency"),
        ([line(custom_id="a", depends_on=["a"])], "circular_dependency"),
        ([line(custom_id="a", depends_on=[])], "invalid_request"),
    ],
)
async def test_what_cannot_be_waited_for(sluice: Gateway, lines: list[Any], code: str) -> None:
    status, answer, _ = await sluice.ask("POST", "/v1/batches", {"requests": lines})
    assert (status, answer["error"]["code"]) == (400, code)
    batch = await ended(sluice, (await create(sluice, jsonl(lines)))["id"])
    assert [one["code"] for one in batch["errors"]["data"]] == [code]
    assert batch["errors"]["data"][0]["line"] is not None


async def test_a_job_alone_waits_for_nobody(sluice: Gateway) -> None:
    status, answer, _ = await sluice.ask("POST", "/v1/jobs", line(depends_on=["a"]))
    assert (status, answer["error"]["param"]) == (400, "depends_on")


async def test_a_budget_holds_what_the_answers_add(sluice: Gateway) -> None:
    lines = [line(custom_id="long", simulate={"output_tokens": 400}), reduce(["long"])]
    for one in lines:
        one["body"]["max_tokens"] = 400
    batch = await ended(sluice, (await submit(sluice, lines, max_cost_usd="0.01"))["id"])
    assert batch["request_counts"]["completed"] == 2
    assert orjson.loads(batch["cost_usd"]) <= 0.01
