"""Responses in the background, followed from any event on, cancelled, and gone on from: with the official SDK."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from redis.asyncio import Redis

from shared.responses import attempt_of
from tests.gateway import ADMIN_KEY, Gateway, gateway, until

MODEL = "simulated/small"
ASKED = "one two three four five six seven eight"
WEATHER: Any = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
async def sluice(
    tmp_path_factory: pytest.TempPathFactory, module_database: str, redis_url: str
) -> AsyncIterator[Gateway]:
    async with Redis.from_url(redis_url) as client:
        await client.flushdb()
    async with gateway(tmp_path_factory.mktemp("responses"), module_database, redis_url) as running:
        yield running


@pytest.fixture(scope="module")
async def client(sluice: Gateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=sluice.url + "/v1", api_key=ADMIN_KEY, max_retries=0) as made:
        yield made


def behaving(**simulate: Any) -> dict[str, Any]:
    return {"simulate": simulate}


async def start(client: AsyncOpenAI, **more: Any) -> Any:
    return await client.responses.create(**{"model": MODEL, "input": ASKED, "background": True, **more})


async def ended(client: AsyncOpenAI, id_: str) -> Any:
    async def probe() -> Any:
        return await client.responses.retrieve(id_)

    return await until(probe, lambda one: one.status not in ("queued", "in_progress"), seconds=20)


async def heard(client: AsyncOpenAI, id_: str, after: int | None = None) -> list[dict[str, Any]]:
    options: dict[str, Any] = {} if after is None else {"starting_after": after}
    return [event.to_dict() async for event in await client.responses.retrieve(id_, stream=True, **options)]


def said(events: list[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


async def refusal(awaitable: Any) -> tuple[int, str | None]:
    with pytest.raises(openai.APIStatusError) as refused:
        await awaitable
    return refused.value.status_code, refused.value.code


async def test_made_in_the_background_and_fetched(sluice: Gateway, client: AsyncOpenAI) -> None:
    raw = await client.responses.with_raw_response.create(
        model=MODEL, input=ASKED, background=True, instructions="Be brief.", metadata={"a": "b"}
    )
    made = raw.parse()
    assert made.id == "resp_" + raw.headers["x-sluice-job-id"].removeprefix("job_")
    assert (made.status, made.background, made.output, made.instructions) == ("queued", True, [], "Be brief.")
    answer = await ended(client, made.id)
    assert (answer.status, answer.background, answer.id) == ("completed", True, made.id)
    assert (answer.created_at, answer.metadata) == (made.created_at, {"a": "b"})
    assert "8 words" in answer.output_text
    job = await sluice.job(raw.headers["x-sluice-job-id"])
    assert (job["priority"], job["deadline"], job["metadata"]) == ("standard", None, {"a": "b"})
    bulk = await client.responses.with_raw_response.create(
        model=MODEL, input=ASKED, background=True, extra_headers={"x-sluice-priority": "bulk"}
    )
    assert (await sluice.job(bulk.headers["x-sluice-job-id"]))["priority"] == "bulk"


async def test_who_comes_again_with_its_idempotency_key_gets_the_same_response(client: AsyncOpenAI) -> None:
    headers = {"Idempotency-Key": "the same"}
    first = await start(client, extra_headers=headers)
    await ended(client, first.id)
    again = await start(client, extra_headers=headers)
    assert (again.id, again.status) == (first.id, "completed")


async def test_a_stream_that_broke_goes_on_where_it_was(sluice: Gateway, client: AsyncOpenAI) -> None:
    stream = await start(client, stream=True, extra_body=behaving(chunk_ms=100))
    first: list[dict[str, Any]] = []
    async for event in stream:
        first.append(event.to_dict())
        if said(first):
            break
    await stream.close()  # the job goes on
    id_ = first[0]["response"]["id"]
    rest = await heard(client, id_, first[-1]["sequence_number"])
    assert rest[-1]["type"] == "response.completed"
    whole = await heard(client, id_)
    assert first + rest == whole
    assert [event["sequence_number"] for event in whole] == list(range(len(whole)))
    answer = await client.responses.retrieve(id_)
    assert said(whole) == answer.output_text
    assert whole[-1]["response"] == answer.to_dict()
    assert await heard(client, id_, whole[-1]["sequence_number"]) == []
    async with client.responses.stream(response_id=id_) as again:
        assert (await again.get_final_response()).output_text == answer.output_text


async def test_chunks_that_are_gone_are_made_of_the_answer(client: AsyncOpenAI, redis_url: str) -> None:
    id_, seen = "", []
    async for event in await start(client, stream=True):
        seen.append(event.to_dict())
    id_ = seen[0]["response"]["id"]
    async with Redis.from_url(redis_url) as redis:
        assert await redis.delete(f"sluice:stream:{id_.removeprefix('resp_')}") == 1
    whole = await heard(client, id_)
    assert said(whole) == said(seen)
    assert whole[-1]["response"] == seen[-1]["response"]
    [last] = await heard(client, id_, 4)
    assert last == seen[-1] | {"sequence_number": 5}


async def test_an_answer_that_is_not_streamed_is_waited_for(client: AsyncOpenAI) -> None:
    made = await start(client, extra_body=behaving(latency_ms=300))
    whole = await heard(client, made.id)
    assert [event["type"] for event in whole[:2]] == ["response.created", "response.in_progress"]
    assert said(whole) == (await client.responses.retrieve(made.id)).output_text
    for after in (0, 3, len(whole) - 2):
        assert await heard(client, made.id, after) == whole[after + 1 :]
    async with client.responses.stream(response_id=made.id) as stream:
        assert (await stream.get_final_response()).status == "completed"


async def test_an_answer_that_begins_anew_voids_what_was_heard(client: AsyncOpenAI) -> None:
    stream = await start(client, stream=True, extra_body=behaving(chunk_ms=20, fail=["stream_error"]))
    first = [event.to_dict() async for event in stream]
    assert said(first)
    assert (first[-1]["type"], first[-1]["code"]) == ("error", "interrupted")
    id_ = first[0]["response"]["id"]
    answer = await ended(client, id_)
    [void] = await heard(client, id_, first[-2]["sequence_number"])
    assert void["type"] == "error"
    whole = await heard(client, id_)
    assert said(whole) == answer.output_text
    assert {attempt_of(event["sequence_number"]) for event in whole[1:]} == {2}
    assert await heard(client, id_, whole[5]["sequence_number"]) == whole[6:]
    assert await heard(client, id_, 0) == whole[1:]


async def test_cancelled(client: AsyncOpenAI) -> None:
    made = await start(client, stream=True, extra_body=behaving(latency_ms=20_000))
    created = await anext(aiter(made))
    for _ in range(2):
        answer = await client.responses.cancel(created.response.id)
        assert (answer.status, answer.output) == ("cancelled", [])
    [*_, last] = await heard(client, answer.id)
    assert (last["type"], last["response"]["status"]) == ("response.failed", "cancelled")
    await made.close()
    foreground = await client.responses.create(model=MODEL, input=ASKED)
    assert await refusal(client.responses.cancel(foreground.id)) == (400, "not_in_background")


async def test_failed_and_expired(sluice: Gateway, client: AsyncOpenAI) -> None:
    made = await start(client, extra_body=behaving(fail=[{"status": 400}]))
    answer = await ended(client, made.id)
    assert (answer.status, answer.error.code) == ("failed", "invalid_request")
    body = {"model": MODEL, "input": ASKED, **behaving(latency_ms=20_000)}
    _, job, _ = await sluice.ask("POST", "/v1/jobs", {"url": "/v1/responses", "body": body, "deadline": 1})
    await sluice.ended(job["id"])
    answer = await client.responses.retrieve(job["id"].replace("job_", "resp_"))
    assert (answer.status, answer.error.code if answer.error else None) == ("failed", "timeout")
    assert await refusal(start(client, previous_response_id=answer.id)) == (400, "previous_response_not_completed")


async def test_an_answer_that_was_cut_off_is_incomplete(client: AsyncOpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "input": ASKED, "max_output_tokens": 3}
    whole = await client.responses.create(**asked)
    streamed = [event.to_dict() async for event in await client.responses.create(**asked, stream=True)]
    behind = await ended(client, (await start(client, max_output_tokens=3)).id)
    for answer in (whole, behind):
        assert answer.status == "incomplete"
        assert answer.incomplete_details.reason == "max_output_tokens"
    for events in (streamed, await heard(client, behind.id), await heard(client, whole.id)):
        assert events[-1]["type"] == "response.incomplete"
        assert events[-1]["response"]["status"] == "incomplete"
        assert said(events) == whole.output_text


async def test_a_conversation_goes_on(sluice: Gateway, client: AsyncOpenAI) -> None:
    first = await client.responses.create(model=MODEL, input="My name is Ada.", instructions="Be brief.")
    spoken: list[Any] = [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "What is it?"},
    ]
    explicit = await client.responses.create(model=MODEL, input=spoken)
    second = await start(client, input="What is it?", previous_response_id=first.id)
    answer = await ended(client, second.id)
    assert (answer.status, answer.previous_response_id) == ("completed", first.id)
    calls = {one["id"].partition("-")[0]: one for one in sluice.calls()}
    told, known = (calls[one.id.replace("resp_", "job_")] for one in (explicit, answer))
    assert (told["n"], known["n"]) == (0, 1)  # to the provider they are the same request
    spoken += [{"role": "assistant", "content": answer.output_text}, {"role": "user", "content": "Thanks."}]
    explicit = await client.responses.create(model=MODEL, input=spoken)
    body = {"model": MODEL, "input": "Thanks.", "previous_response_id": answer.id}
    _, job, _ = await sluice.ask("POST", "/v1/jobs", {"url": "/v1/responses", "body": body})
    third = await sluice.ended(job["id"])
    assert third["result"]["previous_response_id"] == answer.id
    assert third["result"]["usage"]["input_tokens"] == explicit.usage.input_tokens if explicit.usage else False
    listed = [item async for item in client.responses.input_items.list(third["result"]["id"], order="asc", limit=2)]
    assert [item.role for item in listed if item.type == "message"] == ["user", "assistant"] * 2 + ["user"]
    newest = await client.responses.input_items.list(third["result"]["id"], limit=1)
    assert (newest.data[0], newest.has_more) == (listed[-1], True)


async def test_the_output_of_a_tool_goes_back_to_its_call(client: AsyncOpenAI) -> None:
    asked: dict[str, Any] = {"tools": [WEATHER], "tool_choice": "required"}
    first = await client.responses.create(model=MODEL, input="The weather?", **asked)
    [call] = first.output
    assert call.type == "function_call"
    output: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
    second = await client.responses.create(model=MODEL, input=output, tools=[WEATHER], previous_response_id=first.id)
    assert second.status == "completed"
    listed = [item.type async for item in client.responses.input_items.list(second.id, order="asc")]
    assert listed == ["message", "function_call", "function_call_output"]


async def test_what_cannot_be_gone_on_from(sluice: Gateway, client: AsyncOpenAI) -> None:
    missing = (404, "previous_response_not_found")
    running = await start(client, extra_body=behaving(latency_ms=20_000))
    assert await refusal(start(client, previous_response_id=running.id)) == (400, "previous_response_not_ended")
    await client.responses.cancel(running.id)
    unstored = await client.responses.create(model=MODEL, input=ASKED, store=False)
    _, chat, _ = await sluice.ask(
        "POST", "/v1/jobs", {"body": {"model": MODEL, "messages": [{"role": "user", "content": "a"}]}}
    )
    for id_ in (unstored.id, "resp_" + "0" * 32, "nonsense", chat["id"].replace("job_", "resp_")):
        assert await refusal(start(client, previous_response_id=id_)) == missing
        assert await refusal(client.responses.retrieve(id_)) == (404, "response_not_found")
    assert (await refusal(start(client, store=False)))[0] == 400
    assert (await refusal(start(client, conversation="conv_1")))[0] == 400
    line = {"url": "/v1/responses", "body": {"model": MODEL, "input": "a", "previous_response_id": unstored.id}}
    status, shape, _ = await sluice.ask("POST", "/v1/batches", {"requests": [line]})
    assert (status, shape["error"]["param"]) == (400, "requests[0].body.previous_response_id")


async def test_the_line_of_a_batch_is_a_response(sluice: Gateway, client: AsyncOpenAI) -> None:
    line = {"url": "/v1/responses", "body": {"model": MODEL, "input": ASKED, "background": True}}
    _, batch, _ = await sluice.ask("POST", "/v1/batches", {"requests": [line]})
    _, listed, _ = await sluice.ask("GET", f"/v1/jobs?batch_id={batch['id']}")
    answer = await ended(client, listed["data"][0]["id"].replace("job_", "resp_"))
    assert (answer.status, answer.background) == ("completed", True)


async def test_another_tenants_responses_are_not_there(sluice: Gateway, client: AsyncOpenAI) -> None:
    made = await start(client)
    await ended(client, made.id)
    await sluice.ask("POST", "/v1/admin/tenants", {"name": "stranger"})
    stranger = client.with_options(default_headers={"X-Sluice-Tenant": "stranger"})
    assert await refusal(stranger.responses.retrieve(made.id)) == (404, "response_not_found")
    assert await refusal(stranger.responses.retrieve(made.id, stream=True)) == (404, "response_not_found")
    assert await refusal(stranger.responses.cancel(made.id)) == (404, "response_not_found")
    assert (await refusal(stranger.responses.input_items.list(made.id)))[0] == 404
    assert await refusal(start(stranger, previous_response_id=made.id)) == (404, "previous_response_not_found")


@pytest.mark.parametrize("query", ["stream=maybe", "stream=true&starting_after=-1", "stream=true&starting_after=x"])
async def test_queries_that_make_no_sense(sluice: Gateway, client: AsyncOpenAI, query: str) -> None:
    made = await start(client)
    status, shape, _ = await sluice.ask("GET", f"/v1/responses/{made.id}?{query}")
    assert (status, shape["error"]["param"]) == (400, query.rpartition("=")[0].rpartition("&")[2])
    for wrong in ("order=up", "limit=0", "after=nothing"):
        status, shape, _ = await sluice.ask("GET", f"/v1/responses/{made.id}/input_items?{wrong}")
        assert (status, shape["error"]["param"]) == (400, wrong.partition("=")[0])
