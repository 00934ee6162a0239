"""Streamed answers, from the provider through the queue to who reads."""

import asyncio
from typing import Any

import orjson
import pytest

from tests.events import chat, events, follow, said, streamed
from tests.gateway import Gateway, line, until


async def test_a_streamed_chat_completion_says_what_the_whole_one_says(sluice: Gateway) -> None:
    body = streamed()["body"]
    status, chunks, headers = await chat(sluice, body)
    assert status == 200
    assert chunks[-1] is None
    assert all("usage" not in chunk for chunk in chunks[:-1])
    job = await sluice.ended(headers["x-sluice-job-id"])
    assert job["priority"] == "interactive"
    assert job["result"]["choices"][0]["message"]["content"] == said(chunks)
    status, [whole], figures = await chat(sluice, {**body, "stream": False})
    assert status == 200
    assert whole["choices"] == job["result"]["choices"]
    assert job["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]
    assert job["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert figures["x-sluice-cost-usd"] == job["cost_usd"]
    assert figures["x-sluice-attempts"] == "1"
    assert int(figures["x-sluice-queue-ms"]) < 5_000


async def test_usage_is_in_the_stream_where_it_is_asked_for(sluice: Gateway) -> None:
    _, chunks, _ = await chat(sluice, streamed()["body"] | {"stream_options": {"include_usage": True}})
    assert chunks[-2]["choices"] == []
    assert chunks[-2]["usage"]["completion_tokens"] > 0


async def test_chunks_come_while_the_answer_is_being_made(sluice: Gateway) -> None:
    loop = asyncio.get_running_loop()
    came = []
    async with sluice.client.post(
        sluice.url + "/v1/chat/completions", data=orjson.dumps(streamed(chunk_ms=100)["body"])
    ) as answer:
        async for _ in events(answer):
            came.append(loop.time())
    assert came[-1] - came[0] > 0.5


async def test_events_attach_at_any_time_and_resume_without_gap_or_duplicate(sluice: Gateway) -> None:
    id_ = await sluice.submit(**{"simulate": {"chunk_ms": 50}, "text": "one two three four five six"} | {})
    ended = [event async for event in follow(sluice, id_)]
    assert ended[-1][0] == "job.completed"  # not streamed: states only

    status, job, _ = await sluice.ask("POST", "/v1/jobs", streamed(chunk_ms=60))
    assert status == 202
    seen: list[tuple[str, str, Any]] = []
    last = ""
    while not seen or not seen[-1][0].startswith("job.completed"):
        part = 0
        async for event in follow(sluice, job["id"], last):
            seen.append(event)
            last = event[1]
            part += 1
            if part == 4:
                break
    names = [name for name, _, _ in seen]
    chunks = [data for name, _, data in seen if name == "chunk"]
    assert names.count("job.completed") == names.count("job.in_progress") == 1
    result = seen[-1][2]["result"]
    assert said(chunks) == result["choices"][0]["message"]["content"]
    late = [event async for event in follow(sluice, job["id"])]
    assert [data for name, _, data in late if name == "chunk"] == chunks
    third = [event async for event in follow(sluice, job["id"], late[2][1])]
    assert third == late[3:]
    assert [event async for event in follow(sluice, job["id"], last)] == [seen[-1]]


async def test_another_attempt_begins_anew(sluice: Gateway) -> None:
    status, job, _ = await sluice.ask("POST", "/v1/jobs", streamed(fail=["stream_error"], chunk_ms=20))
    assert status == 202
    seen = [event async for event in follow(sluice, job["id"])]
    names = [name for name, _, _ in seen]
    begun = names.index("restarted")
    assert "chunk" in names[:begun]
    chunks = [data for name, _, data in seen[begun:] if name == "chunk"]
    assert said(chunks) == seen[-1][2]["result"]["choices"][0]["message"]["content"]
    first, second = await sluice.attempts(job["id"])
    assert (first["status"], second["status"]) == ("failed", "completed")
    assert first["usage"]["completion_tokens"] > 0
    assert first["usage_estimated"]


async def test_a_chat_stream_whose_attempt_failed_in_the_middle_ends_with_an_error(sluice: Gateway) -> None:
    status, chunks, headers = await chat(sluice, streamed(fail=["break"], chunk_ms=20)["body"])
    assert status == 200
    assert said(chunks[:-1])
    assert chunks[-1]["error"]["code"] == "interrupted"
    job = await sluice.ended(headers["x-sluice-job-id"])
    assert job["status"] in ("cancelled", "completed")


async def test_an_error_before_the_first_chunk_has_its_status(sluice: Gateway) -> None:
    status, [error], headers = await chat(sluice, streamed(fail=[{"status": 400}])["body"])
    assert (status, error["error"]["code"]) == (400, "invalid_request")
    assert headers["x-should-retry"] == "false"


async def test_who_leaves_takes_a_synchronous_job_along_but_no_other(sluice: Gateway) -> None:
    jobs = []
    for key in (None, "mine"):
        headers = {} if key is None else {"Idempotency-Key": key}
        async with sluice.client.post(
            sluice.url + "/v1/chat/completions",
            data=orjson.dumps(streamed(chunk_ms=300, key=str(key))["body"]),
            headers=headers,
        ) as answer:
            jobs.append(answer.headers["x-sluice-job-id"])
            await answer.content.readline()
            answer.close()
    first, second = [await sluice.ended(id_) for id_ in jobs]
    assert (first["status"], second["status"]) == ("cancelled", "completed")
    _, job, _ = await sluice.ask("POST", "/v1/jobs", streamed(chunk_ms=100))
    async for _ in follow(sluice, job["id"]):
        break
    assert (await sluice.ended(job["id"]))["status"] == "completed"


async def test_who_leaves_before_the_answer_begins_takes_the_job_along(sluice: Gateway) -> None:
    with pytest.raises(asyncio.TimeoutError):
        async with asyncio.timeout(1):
            await chat(sluice, line(simulate={"latency_ms": 20_000})["body"])
    _, listed, _ = await sluice.ask("GET", "/v1/jobs?limit=1")
    assert (await sluice.ended(listed["data"][0]["id"]))["status"] == "cancelled"


async def test_prefer_respond_async_answers_with_the_job(sluice: Gateway) -> None:
    status, job, headers = await sluice.ask(
        "POST", "/v1/chat/completions", line()["body"], headers={"Prefer": "respond-async"}
    )
    assert status == 202
    assert headers["Location"] == f"/v1/jobs/{job['id']}"
    assert (await sluice.ended(job["id"]))["deadline"] is None


async def test_a_reader_who_is_slow_slows_nobody(sluice: Gateway) -> None:
    words = " ".join(str(number) for number in range(2_000))
    made = line(text=f"Summarize this.\n\n{words}. {words}.", simulate={"chunk_ms": 0})
    made["body"]["stream"] = True
    async with sluice.client.post(sluice.url + "/v1/chat/completions", data=orjson.dumps(made["body"])) as answer:
        id_ = answer.headers["x-sluice-job-id"]

        async def completed() -> bool:
            return (await sluice.job(id_))["status"] == "completed"

        await until(completed, seconds=20)  # nothing of the stream has been read yet
        chunks = [data async for _, _, data in events(answer)]
    assert chunks[-1] is None
    assert said(chunks) == (await sluice.job(id_))["result"]["choices"][0]["message"]["content"]
