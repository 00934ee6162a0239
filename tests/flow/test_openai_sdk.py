"""The official `openai` SDK and LangChain as clients: only the base URL is ours."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import AsyncOpenAI
from pydantic import BaseModel, SecretStr

from tests.gateway import ADMIN_KEY, Gateway

MODEL = "simulated/small"
MESSAGES: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Report(BaseModel):
    city: str
    degrees: int
    windy: bool


@pytest_asyncio.fixture
async def client(sluice: Gateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=sluice.url + "/v1", api_key=ADMIN_KEY) as made:
        yield made


async def test_chat(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert "weather" in str(answer.choices[0].message.content)
    assert answer.usage is not None
    raw = await client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
    assert raw.headers["x-sluice-job-id"].startswith("job_")
    assert raw.parse().choices == answer.choices


async def test_chat_streamed(client: AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    stream = await client.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage


async def test_tools_whole_and_streamed(client: AsyncOpenAI) -> None:
    options: Any = {"model": MODEL, "messages": MESSAGES, "tools": [WEATHER], "tool_choice": "required"}
    answer = await client.chat.completions.create(**options)
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, answer.choices[0].finish_reason) == ("weather", "tool_calls")
    async with client.chat.completions.stream(**options) as stream:
        final = await stream.get_final_completion()
    [again] = final.choices[0].message.tool_calls or []
    assert again.function.arguments == call.function.arguments


async def test_parse_with_a_pydantic_schema(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=Report)
    assert isinstance(answer.choices[0].message.parsed, Report)


async def test_embeddings_as_base64_and_as_floats(client: AsyncOpenAI) -> None:
    text = await client.embeddings.create(model=MODEL, input=["a", "b"], dimensions=8)
    floats = await client.embeddings.create(model=MODEL, input=["a", "b"], dimensions=8, encoding_format="float")
    assert [one.embedding for one in text.data] == [pytest.approx(one.embedding, rel=1e-6) for one in floats.data]


async def test_models(client: AsyncOpenAI) -> None:
    names = [model.id async for model in client.models.list()]
    assert all(isinstance(name, str) for name in names)
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nowhere/nothing")


async def test_errors_are_the_sdks_own(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="unheard-of", messages=MESSAGES)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        await client.chat.completions.create(model=MODEL, messages=[])
    assert bad.value.param == "messages"
    simulate = {"fail": [{"status": 401}] * 9}
    with pytest.raises(openai.InternalServerError) as failed:  # the provider's 401 is never the caller's
        await client.chat.completions.create(model=MODEL, messages=MESSAGES, extra_body={"simulate": simulate})
    assert failed.value.status_code == 502


async def test_responses(client: AsyncOpenAI) -> None:
    answer = await client.responses.create(model=MODEL, input="What is the weather?", instructions="Be short.")
    assert answer.output_text
    assert answer.status == "completed"
    assert answer.usage is not None
    async with client.responses.stream(model=MODEL, input="What is the weather?", instructions="Be short.") as stream:
        types = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert types[0] == "response.created"
    assert types[-1] == "response.completed"
    assert final.output_text == answer.output_text
    parsed = await client.responses.parse(model=MODEL, input="Report.", text_format=Report)
    assert isinstance(parsed.output_parsed, Report)


async def test_langchain(sluice: Gateway) -> None:
    key = SecretStr(ADMIN_KEY)
    model = ChatOpenAI(model=MODEL, base_url=sluice.url + "/v1", api_key=key)
    whole = await model.ainvoke("Hello there")
    pieces = [piece.content async for piece in model.astream("Hello there")]
    assert "".join(str(piece) for piece in pieces) == whole.content
    report = await model.with_structured_output(Report).ainvoke("What is the weather?")
    assert isinstance(report, Report)
    called = await model.with_structured_output(Report, method="function_calling").ainvoke("What is the weather?")
    assert isinstance(called, Report)
    vectors = OpenAIEmbeddings(model=MODEL, base_url=sluice.url + "/v1", api_key=key, check_embedding_ctx_length=False)
    assert len(await vectors.aembed_documents(["a", "b"])) == 2
    await model.root_async_client.close()
    await vectors.async_client._client.close()
