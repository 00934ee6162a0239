"""The official `openai` SDK with files, batches and their webhooks: the current one, and the first that had batches."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest
from openai import AsyncOpenAI
from openai.types import Batch

from tests.chaos.test_webhooks import Receiver, receiver
from tests.conftest import fresh_database
from tests.flow.test_batch_files import CONFIG, jsonl
from tests.gateway import ADMIN_KEY, Gateway, gateway, until

MODEL = "simulated/small"
CHAT: Any = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")

# The first with batches, with what it needs besides that the current one does not bring along.
OLD_SDK = (
    "openai==1.18.0",
    "httpx==0.27.2",
    "httpcore==1.0.9",
    "h11==0.16.0",
    "distro==1.9.0",
    "tqdm==4.67.1",
    "certifi",
)


@pytest.fixture(scope="module")
async def sluice(
    tmp_path_factory: pytest.TempPathFactory, database_url: str, template: str, redis_url: str
) -> AsyncIterator[Gateway]:
    async with (
        fresh_database(database_url, template) as database,
        gateway(tmp_path_factory.mktemp("batches_sdk"), database, redis_url, config=CONFIG) as running,
    ):
        yield running


@pytest.fixture(scope="module")
async def client(sluice: Gateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=sluice.url + "/v1", api_key=ADMIN_KEY) as made:
        yield made


def chat(custom_id: str, *, model: str = MODEL, url: str = CHAT, **body: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": f"Say {custom_id}."}], **body}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": asked}


async def upload(client: AsyncOpenAI, lines: list[Any]) -> str:
    return (await client.files.create(file=("lines.jsonl", jsonl(lines)), purpose="batch")).id


async def create(client: AsyncOpenAI, lines: list[Any], *, endpoint: Any = CHAT, **options: Any) -> Batch:
    options = {"completion_window": "24h", **options}
    return await client.batches.create(input_file_id=await upload(client, lines), endpoint=endpoint, **options)


async def ended(client: AsyncOpenAI, batch: Batch) -> Batch:
    return await until(lambda: client.batches.retrieve(batch.id), lambda one: one.status in ENDED)


async def content(client: AsyncOpenAI, file: str | None) -> list[Any]:
    assert file is not None
    return [orjson.loads(one) for one in (await client.files.content(file)).text.splitlines()]


async def test_a_file_its_batch_and_the_files_of_its_results(client: AsyncOpenAI) -> None:
    failing = {"fail": [{"status": 400, "message": "no"}]}
    lines = [*(chat(str(number)) for number in range(20)), chat("bad", simulate=failing)]
    made = await create(client, lines, metadata={"k": "v"})
    assert made.object == "batch"
    batch = await ended(client, made)
    assert (batch.id, batch.status, batch.endpoint, batch.metadata) == (made.id, "completed", CHAT, {"k": "v"})
    assert batch.request_counts is not None
    assert batch.request_counts.model_dump(include={"total", "completed", "failed"}) == {
        "total": 21,
        "completed": 20,
        "failed": 1,
    }
    assert batch.usage is not None
    assert batch.usage.total_tokens > 0
    assert batch.expires_at == batch.created_at + 86_400
    moments = [batch.created_at, batch.in_progress_at, batch.finalizing_at, batch.completed_at]
    assert moments == sorted(moments, key=lambda one: one or 0)
    output = await content(client, batch.output_file_id)
    assert {one["custom_id"] for one in output} == {str(number) for number in range(20)}
    assert all(one["response"]["body"]["choices"][0]["message"]["content"] for one in output)
    [error] = await content(client, batch.error_file_id)
    assert (error["custom_id"], error["response"], error["error"]["code"]) == ("bad", None, "invalid_request")
    shown = await client.files.retrieve(str(batch.output_file_id))
    assert (shown.purpose, shown.bytes) == ("batch_output", len(jsonl(output)))


async def test_listing_goes_through_all_pages_and_ends(client: AsyncOpenAI) -> None:
    file = await upload(client, [chat("a")])
    made = [await client.batches.create(input_file_id=file, endpoint=CHAT, completion_window="24h") for _ in range(5)]
    listed = [one.id async for one in client.batches.list(limit=2)]
    assert listed[:5] == [one.id for one in reversed(made)]
    assert len(set(listed)) == len(listed)
    assert [one.id async for one in client.batches.list()] == listed


async def test_embeddings_and_responses(client: AsyncOpenAI) -> None:
    asked = [
        ("/v1/embeddings", {"model": MODEL, "input": ["a", "b"], "dimensions": 4}),
        ("/v1/responses", {"model": MODEL, "input": "What is the weather?"}),
    ]
    for endpoint, body in asked:
        line = {"custom_id": "x", "method": "POST", "url": endpoint, "body": body}
        batch = await ended(client, await create(client, [line], endpoint=endpoint))
        assert (batch.status, batch.endpoint) == ("completed", endpoint)
        [line] = await content(client, batch.output_file_id)
        answer = line["response"]["body"]
        if endpoint == "/v1/embeddings":
            assert [len(one["embedding"]) for one in answer["data"]] == [4, 4]
        else:
            assert openai.types.responses.Response.model_validate(answer).output_text


async def test_what_is_wrong_with_a_file_is_told_by_line(client: AsyncOpenAI) -> None:
    batch = await ended(client, await create(client, [chat("a"), chat("a"), chat("b", url="/v1/embeddings")]))
    assert batch.status == "failed"
    assert batch.errors is not None
    found = [(one.line, one.code, one.param) for one in batch.errors.data or ()]
    assert found == [(2, "duplicate_custom_id", "custom_id"), (3, "url_mismatch", "url")]
    with pytest.raises(openai.BadRequestError) as missing:
        await client.batches.create(input_file_id="file_" + "0" * 32, endpoint=CHAT, completion_window="24h")
    assert (missing.value.code, missing.value.param) == ("file_not_found", "input_file_id")


async def test_every_end_of_a_batch_has_its_webhook(client: AsyncOpenAI, sluice: Gateway) -> None:
    _, secret, _ = await sluice.ask("GET", "/v1/webhook_signing_secret")
    never = chat("never", model="idle/any")
    async with receiver() as target:
        extra = {"webhook": {"url": f"{target.url}/ok/1"}}
        done = await create(client, [chat("a")], extra_body=extra)
        bad = await create(client, [{}], extra_body=extra)
        late = await create(client, [never], completion_window="1s", extra_body=extra)
        stopped = await create(client, [never], extra_body=extra)
        await until(lambda: client.batches.retrieve(stopped.id), lambda one: one.status == "in_progress")
        assert (await client.batches.cancel(stopped.id)).status in ("cancelling", "cancelled")
        expected = {
            ("batch.completed", done.id),
            ("batch.failed", bad.id),
            ("batch.expired", late.id),
            ("batch.cancelled", stopped.id),
        }
        found = await until(lambda: told(client, target, secret["signing_secret"]), lambda one: len(one) >= 4)
    assert found == expected


async def told(client: AsyncOpenAI, target: Receiver, secret: str) -> set[tuple[str, str]]:
    """Return the type of every event that came and the batch it is about, as the SDK reads them."""
    events = set()
    for id_, tries in target.tries.items():
        for headers, body in tries:
            event: Any = client.webhooks.unwrap(body, headers, secret=secret)
            assert event.id == id_
            events.add((event.type, event.data.id))
    return events


@pytest.fixture(scope="module")
def old_sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the old SDK is installed; the rest of what it needs is what the current one needs too."""
    directory = tmp_path_factory.mktemp("old_sdk")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    try:
        subprocess.run(
            [*command, "--target", directory, *OLD_SDK], check=True, capture_output=True, text=True, timeout=120
        )
    except subprocess.SubprocessError as error:
        said = str(getattr(error, "stderr", None) or error).strip()
        pytest.skip(f"pip cannot install {OLD_SDK[0]}: {said[-300:]}")
    return directory


async def test_the_first_sdk_that_had_batches(sluice: Gateway, old_sdk: Path) -> None:
    env = {
        **os.environ,
        "PYTHONPATH": str(old_sdk),
        "OPENAI_BASE_URL": sluice.url + "/v1",
        "OPENAI_API_KEY": ADMIN_KEY,
    }
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).parent / "old_sdk_batch.py"),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await child.communicate()
    assert child.returncode == 0, err.decode()
    seen = orjson.loads(out)
    assert (seen["version"], seen["status"], seen["metadata"]) == ("1.18.0", "completed", {"k": "v"})
    assert [seen["counts"][name] for name in ("total", "completed", "failed")] == [2, 1, 1]
    assert [one["custom_id"] for one in seen["output"]] == ["good"]
    assert [one["error"]["code"] for one in seen["errors"]] == ["invalid_request"]
    assert (seen["cancelled"], seen["missing"]) == ("completed", "batch_not_found")
