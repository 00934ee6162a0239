"""The official `anthropic` SDK as a client: only the base URL is ours.

The model of `chained` is one of a vendor that speaks the dialect itself: it is this gateway again.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic
from anthropic.types import Message
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse
from pydantic import BaseModel

from tests.conftest import fresh_database
from tests.gateway import ADMIN_KEY, CONFIG, Gateway, gateway, until

MODEL = "simulated/small"
CHAINED = "chained/simulated/small"
MESSAGES: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
WEATHER: Any = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
ASKED: Any = {"model": MODEL, "max_tokens": 100, "messages": MESSAGES}


@pytest.fixture(scope="module")
async def running(
    tmp_path_factory: pytest.TempPathFactory, database_url: str, template: str, redis_url: str
) -> AsyncIterator[Gateway]:
    chained = f"  chained: {{kind: anthropic, base_url: SELF/v1, keys: [{{name: main, value: {ADMIN_KEY}}}]}}\n"
    config = CONFIG.replace("providers:\n", "providers:\n" + chained)
    directory = tmp_path_factory.mktemp("anthropic")
    async with (
        fresh_database(database_url, template) as database,
        gateway(directory, database, redis_url, parts=(), config=config) as made,
    ):
        path = directory / "sluice.yaml"
        path.write_text(path.read_text().replace("SELF", made.url))
        for part in ("upstream", "api", "maintain"):
            await made.start(part)
        for pool in ("simulated", "chained"):
            await made.start(pool, pool)
        yield made


@pytest_asyncio.fixture
async def client(running: Gateway) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=running.url, api_key=ADMIN_KEY, max_retries=0) as made:
        yield made


@pytest.mark.parametrize("model", [MODEL, CHAINED])
async def test_a_message_whole_and_streamed(client: AsyncAnthropic, model: str) -> None:
    raw = await client.messages.with_raw_response.create(**ASKED | {"model": model})
    whole = await raw.parse()
    Message.model_validate(whole.to_dict(mode="json"))
    [block] = whole.content
    assert block.type == "text"
    assert "weather" in block.text
    assert whole.stop_reason == "end_turn"
    assert whole.usage.input_tokens > 0
    assert raw.headers["request-id"] == raw.headers["x-request-id"]
    job = raw.headers["x-sluice-job-id"]
    assert whole.id.startswith("msg_")
    assert (whole.id == job.replace("job_", "msg_")) == (model == MODEL), "a vendor's own message has its own id"
    async with client.messages.stream(**ASKED | {"model": model}) as stream:
        said = "".join([text async for text in stream.text_stream])
        final = await stream.get_final_message()
    assert said == block.text
    assert (final.content[0].to_dict()["text"], final.stop_reason) == (block.text, "end_turn")
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.usage.input_tokens == whole.usage.input_tokens


@pytest.mark.parametrize("model", [MODEL, CHAINED])
async def test_tools_there_and_back(client: AsyncAnthropic, model: str) -> None:
    options: Any = ASKED | {"model": model, "tools": [WEATHER], "tool_choice": {"type": "any"}}
    answer = await client.messages.create(**options)
    [call] = answer.content
    assert call.type == "tool_use"
    assert (call.name, answer.stop_reason, list(call.input)) == ("weather", "tool_use", ["city"])
    async with client.messages.stream(**options) as stream:
        [again] = (await stream.get_final_message()).content
    assert again.type == "tool_use"
    assert again.input == call.input
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "Rain."}
    told: Any = [*MESSAGES, answer.to_param(), {"role": "user", "content": [result]}]
    after = await client.messages.create(model=model, max_tokens=100, messages=told, tools=[WEATHER])
    assert after.stop_reason == "end_turn"


class Report(BaseModel):
    city: str
    degrees: int


async def test_an_answer_by_a_schema(client: AsyncAnthropic) -> None:
    answer = await client.messages.parse(**ASKED, output_format=Report)
    assert isinstance(answer.parsed_output, Report)


async def test_errors_are_the_sdks_own(running: Gateway, client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        await client.messages.create(**ASKED | {"model": "unheard-of"})
    assert missing.value.type == "not_found_error"
    assert isinstance(missing.value.body, dict)
    assert missing.value.body["error"]["code"] == "model_not_found"
    assert missing.value.body["request_id"] == missing.value.request_id
    with pytest.raises(anthropic.BadRequestError) as bad:
        await client.messages.create(**ASKED | {"messages": [], "max_tokens": -1}, stream=True)
    assert isinstance(bad.value.body, dict)
    assert [one["param"] for one in bad.value.body["error"]["faults"]] == ["messages", "max_tokens"]
    with pytest.raises(anthropic.AuthenticationError) as stranger:
        await client.with_options(api_key="sk-sl-nobody").messages.create(**ASKED)
    assert stranger.value.type == "authentication_error"
    failing: Any = {"simulate": {"fail": [{"status": 401}] * 9}}
    with pytest.raises(anthropic.InternalServerError) as failed:  # the provider's 401 is never the caller's
        await client.messages.create(**ASKED, extra_body=failing)
    assert (failed.value.status_code, failed.value.type) == (502, "api_error")
    broken: Any = {"simulate": {"fail": ["stream_error"] * 9}}
    with pytest.raises(anthropic.APIStatusError) as lost:
        async with client.messages.stream(**ASKED, extra_body=broken) as stream:
            await stream.get_final_message()
    assert lost.value.type == "api_error"
    status, told, _ = await running.ask("GET", "/v1/messages/nowhere")
    assert (status, told["type"], told["error"]["type"]) == (404, "error", "not_found_error")


async def test_what_chat_cannot_do_is_named_or_dropped(client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.BadRequestError) as refused:
        await client.messages.create(**ASKED, extra_body={"top_k": 5})
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["error"]["param"] == "top_k"
    raw = await client.messages.with_raw_response.create(**ASKED, extra_body={"top_k": 5, "drop_unsupported": True})
    assert raw.headers["x-sluice-dropped"] == "top_k"


async def test_either_header_shows_the_key_and_the_first_is_authorization(running: Gateway) -> None:
    body = ASKED | {"messages": [{"role": "user", "content": "x"}]}
    shown = ({"x-api-key": ADMIN_KEY}, 200), ({"x-api-key": "sk-sl-nobody"}, 401), ({"x-api-key": ""}, 401)
    for headers, expected in shown:
        async with running.client.post(
            running.url + "/v1/messages/count_tokens", json=body, headers=headers | {"Authorization": "Basic eDp5"}
        ) as answer:
            assert answer.status == expected, headers
    status, _, _ = await running.ask("GET", "/v1/models", headers={"x-api-key": "sk-sl-nobody"})
    assert status == 200


async def test_tokens_are_counted(client: AsyncAnthropic) -> None:
    counted = await client.messages.count_tokens(model=MODEL, messages=MESSAGES)
    more = await client.messages.count_tokens(model=MODEL, messages=MESSAGES, system="Be kind.", tools=[WEATHER])
    assert 5 < counted.input_tokens < 30
    assert more.input_tokens > counted.input_tokens + 5


async def test_a_job_of_a_message_and_who_it_is_for(running: Gateway, client: AsyncAnthropic) -> None:
    id_ = await running.submit(url="/v1/messages", body=ASKED | {"metadata": {"user_id": "ann"}})
    job = await running.ended(id_)
    assert (job["status"], job["result"]["type"], job["url"]) == ("completed", "message", "/v1/messages")
    assert job["usage"]["prompt_tokens"] == job["result"]["usage"]["input_tokens"]
    assert job["metadata"] == {}
    key = {"Idempotency-Key": "again"}
    streamed: Any = ASKED | {"extra_headers": key}
    texts = []
    for _ in range(2):  # the second time there is nothing left to stream
        async with client.messages.stream(**streamed) as stream:
            texts.append(await stream.get_final_text())
    assert texts[0] == texts[1]


async def test_what_the_vendor_fetches_itself_has_no_bound(running: Gateway) -> None:
    linked = {"type": "document", "source": {"type": "url", "url": "https://a.example/b.pdf"}}
    body = ASKED | {"model": CHAINED, "messages": [{"role": "user", "content": [linked]}]}
    limited = {"url": "/v1/messages", "body": body, "max_cost_usd": "1"}
    status, told, _ = await running.ask("POST", "/v1/jobs", limited)
    assert (status, told["error"]["code"]) == (400, "unbounded_input")


async def test_batches(client: AsyncAnthropic) -> None:
    failing = ASKED | {"simulate": {"fail": [{"status": 400}] * 9}}
    made = await client.messages.batches.create(
        requests=[{"custom_id": "good", "params": ASKED}, {"custom_id": "bad", "params": failing}]
    )
    MessageBatch.model_validate(made.to_dict(mode="json"))
    assert made.id.startswith("msgbatch_")

    async def ended() -> MessageBatch:
        return await client.messages.batches.retrieve(made.id)

    batch = await until(ended, lambda one: one.processing_status == "ended")
    MessageBatch.model_validate(batch.to_dict(mode="json"))
    assert (batch.request_counts.succeeded, batch.request_counts.errored, batch.request_counts.processing) == (1, 1, 0)
    lines = {line.custom_id: line async for line in await client.messages.batches.results(made.id)}
    for line in lines.values():
        MessageBatchIndividualResponse.model_validate(line.to_dict(mode="json"))
    assert lines["good"].result.type == "succeeded"
    assert lines["bad"].result.type == "errored"
    assert lines["bad"].result.error.error.type == "invalid_request_error"
    deleted = await client.messages.batches.delete(made.id)
    assert (deleted.id, deleted.type) == (made.id, "message_batch_deleted")
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.batches.retrieve(made.id)


async def test_a_batch_is_cancelled_and_listed(running: Gateway, client: AsyncAnthropic) -> None:
    slow = ASKED | {"simulate": {"latency_ms": 600_000}}
    made = [await client.messages.batches.create(requests=[{"custom_id": "a", "params": slow}]) for _ in range(3)]
    elsewhere, other, _ = await running.ask(
        "POST", "/v1/batches", {"requests": [{"body": {"model": MODEL, "messages": MESSAGES}}]}
    )
    assert elsewhere == 202
    with pytest.raises(anthropic.BadRequestError):
        await client.messages.batches.delete(made[0].id)
    with pytest.raises(anthropic.AnthropicError):
        await client.messages.batches.results(made[0].id)
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.batches.retrieve(other["id"].replace("batch_", "msgbatch_"))
    status, same, _ = await running.ask("GET", f"/v1/batches/{made[0].id.removeprefix('msg')}")
    assert (status, same["endpoint"]) == (200, "/v1/messages")
    newest = [one.id for one in reversed(made)]
    found = [one.id async for one in client.messages.batches.list(limit=1)]
    assert found[:3] == newest
    back = await client.messages.batches.list(before_id=newest[2], limit=1)
    assert ([one.id for one in back.data], back.has_more) == ([newest[1]], True)
    for one in made:
        assert (await client.messages.batches.cancel(one.id)).cancel_initiated_at is not None

    async def statuses() -> list[str]:
        return [one.processing_status for one in [await client.messages.batches.retrieve(one.id) for one in made]]

    await until(statuses, lambda found: set(found) == {"ended"})
    [line] = [line async for line in await client.messages.batches.results(made[0].id)]
    assert line.result.type == "canceled"


async def test_faults_of_a_batch_have_their_places(client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.BadRequestError) as bad:
        await client.messages.batches.create(
            requests=[{"custom_id": "a", "params": ASKED}, {"custom_id": "a", "params": ASKED | {"top_k": 3}}]
        )
    assert isinstance(bad.value.body, dict)
    assert [one["param"] for one in bad.value.body["error"]["faults"]] == ["requests[1].params.top_k"]


async def test_a_caller_that_leaves_takes_its_job_along(running: Gateway, client: AsyncAnthropic) -> None:
    slow: Any = {"simulate": {"latency_ms": 600_000, "key": "left"}}
    asking = asyncio.create_task(client.messages.create(**ASKED, extra_body=slow))

    async def jobs(status: str) -> Any:
        _, listed, _ = await running.ask("GET", f"/v1/jobs?status={status}&limit=1")
        return listed["data"]

    [job] = await until(lambda: jobs("in_progress"))
    asking.cancel()
    ended = await running.ended(job["id"])
    assert ended["status"] == "cancelled"
