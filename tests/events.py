"""Reading streams of events, as a client of the gateway does."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson

from tests.gateway import Gateway, line


def streamed(**simulate: Any) -> dict[str, Any]:
    made = line(text="one two three four five six seven eight", simulate=simulate)
    made["body"]["stream"] = True
    return made


async def events(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, str, Any]]:
    """Yield `(event, id, data)` of a stream of events; data is None where it is no JSON."""
    found: dict[str, str] = {}
    async for raw in answer.content:
        text = raw.decode().rstrip("\n")
        if text and not text.startswith(":"):
            name, _, value = text.partition(": ")
            found[name] = value
        elif found:
            data = found.get("data", "")
            yield found.get("event", ""), found.get("id", ""), orjson.loads(data) if data.startswith("{") else None
            found = {}


async def chat(sluice: Gateway, body: dict[str, Any], **headers: str) -> tuple[int, list[Any], Any]:
    """Return status, chunks and headers of a streamed chat completion; a chunk of None is `[DONE]`."""
    url = sluice.url + "/v1/chat/completions"
    async with sluice.client.post(url, data=orjson.dumps(body), headers=headers) as answer:
        if answer.content_type != "text/event-stream":
            return answer.status, [await answer.json()], answer.headers
        return answer.status, [data async for _, _, data in events(answer)], answer.headers


def said(chunks: list[Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks if chunk for choice in chunk["choices"])


async def follow(sluice: Gateway, job: str, last: str = "") -> AsyncIterator[tuple[str, str, Any]]:
    headers = {"Last-Event-ID": last} if last else {}
    async with sluice.client.get(f"{sluice.url}/v1/jobs/{job}/events", headers=headers) as answer:
        assert answer.status == 200
        async for event in events(answer):
            yield event
