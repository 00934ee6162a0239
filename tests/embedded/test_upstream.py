"""The simulated provider as a process: what its answers say of its limits, how it dies, what it has counted."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest

from tests.gateway import until


class Upstream:
    """A running simulated provider, and how to call it."""

    def __init__(self, url: str, client: aiohttp.ClientSession) -> None:
        self.url = url
        self._client = client

    async def call(self, text: str = "hello", *, key: str = "", **fields: Any) -> tuple[int, Any, Mapping[str, str]]:
        body = {"model": "m", "messages": [{"role": "user", "content": text}], **fields}
        headers = {"authorization": f"Bearer {key}"} if key else {}
        async with self._client.post(f"{self.url}/v1/chat/completions", json=body, headers=headers) as answer:
            streamed = answer.content_type == "text/event-stream"
            return answer.status, await (answer.text() if streamed else answer.json()), answer.headers

    async def control(self, **wanted: Any) -> int:
        async with self._client.post(f"{self.url}/control", json=wanted) as answer:
            return answer.status

    async def stats(self) -> Any:
        async with self._client.get(f"{self.url}/stats") as answer:
            return await answer.json()


@contextlib.asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[Upstream]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-m", "shared.embedded.upstream", "--port", "0", *arguments,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    try:
        async with asyncio.timeout(30):
            line = (await child.stdout.readline()).decode()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as client:
            yield Upstream(line.split()[-1], client)
    finally:
        child.terminate()
        async with asyncio.timeout(10):
            await child.wait()


def told(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items() if name.lower().startswith("x-ratelimit-")}


USES_70 = {"output_tokens": 62}
"""With the prompt's one token and what OpenAI's format adds, a call uses 70."""


async def test_tokens_are_counted_with_the_output_before_the_answer() -> None:
    # A token in ten seconds: what was taken does not come back while the test looks.
    async with running("--rpm", "6", "--burst", "9", "--tpm", "6", "--token-burst", "150") as upstream:
        first, second = await upstream.call(simulate=USES_70), await upstream.call(simulate=USES_70, stream=True)
        assert (first[0], second[0]) == (200, 200)
        assert first[1]["usage"]["total_tokens"] == 70
        assert told(first[2]) == {
            "x-ratelimit-limit-requests": "6",
            "x-ratelimit-remaining-requests": "8",
            "x-ratelimit-reset-requests": "10s",
            "x-ratelimit-limit-tokens": "6",
            "x-ratelimit-remaining-tokens": "80",
            "x-ratelimit-reset-tokens": "11m40s",
        }
        assert told(second[2])["x-ratelimit-remaining-tokens"] == "10"
        status, error, headers = await upstream.call(simulate=USES_70)
        assert (status, error["error"]["type"]) == (429, "tokens")
        assert 590 < float(headers["retry-after"]) <= 600
        assert 0 <= int(headers["retry-after-ms"]) - 1000 * float(headers["retry-after"]) <= 10
        assert told(headers)["x-ratelimit-remaining-requests"] == "7"
        stats = await upstream.stats()
        assert (stats["refused"], stats["tokens"]) == (1, 140)


async def test_it_may_say_nothing_of_its_limits() -> None:
    async with running("--rpm", "6", "--no-headers") as upstream:
        answers = [await upstream.call(), await upstream.call()]
        assert [status for status, _, _ in answers] == [200, 429]
        assert [told(headers) for _, _, headers in answers] == [{}, {}]
        assert "retry-after" in answers[1][2]
    async with running() as upstream:
        assert told((await upstream.call())[2]) == {}


async def test_calls_are_counted_by_key_and_with_their_times() -> None:
    async with running("--rpm", "6", "--burst", "2") as upstream:
        began = time.time()
        await upstream.call(key="sk-a", simulate=USES_70)
        await upstream.call(key="sk-b", simulate=USES_70)
        await upstream.call(key="sk-b", simulate=USES_70)
        stats = await upstream.stats()
        assert stats["keys"] == {
            "sk-a": {"calls": 1, "answered": 1, "by_status": {"200": 1}, "refused": 0, "tokens": 70},
            "sk-b": {"calls": 2, "answered": 2, "by_status": {"200": 1, "429": 1}, "refused": 1, "tokens": 70},
        }
        assert (stats["calls"], stats["tokens"], stats["by_status"]) == (3, 140, {"200": 2, "429": 1})
        names = ("first_received", "first_answered", "last_answered", "last_received")
        times = [began, *(stats[name] for name in names), time.time()]
        assert times == sorted(times)
        assert len(set(times[1:5])) == 4


async def test_while_it_is_dead_every_call_fails_and_then_none() -> None:
    async with running() as upstream:
        waiting = asyncio.create_task(upstream.call(simulate={"latency_ms": 300}))
        await until(upstream.stats, lambda stats: stats["in_flight"] == 1)
        assert await upstream.control(dead_seconds=60) == 200
        for call in (waiting, upstream.call()):
            with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
                await call
        assert await upstream.control(dead_seconds=60, how="503") == 200
        assert (await upstream.call())[0] == 503
        assert await upstream.control(dead_seconds=0) == 200
        assert (await upstream.call())[0] == 200
        reset, refusing = (await upstream.stats())["deaths"]
        assert [(one["how"], one["calls"]) for one in (reset, refusing)] == [("reset", 1), ("503", 1)]
        assert reset["ends"] <= refusing["began"] <= refusing["ends"] <= refusing["answered_again"] <= time.time()
        assert reset["answered_again"] is None


async def test_a_death_ends_by_itself_and_may_leave_calls_hanging() -> None:
    async with running() as upstream:
        assert await upstream.control(dead_seconds=0.4, how="hang") == 200
        hanging = asyncio.create_task(upstream.call())
        await until(upstream.stats, lambda stats: stats["deaths"][0]["calls"] == 1)
        await until(upstream.stats, lambda stats: time.time() > stats["deaths"][0]["ends"])
        assert (await upstream.call())[0] == 200
        assert not hanging.done()
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging


@pytest.mark.parametrize("wanted", [{}, {"dead_seconds": -1}, {"dead_seconds": 1, "how": "x"}, {"dead_seconds": "1"}])
async def test_what_it_cannot_do_is_refused(wanted: dict[str, Any]) -> None:
    async with running() as upstream:
        assert await upstream.control(**wanted) == 400
        assert (await upstream.stats())["deaths"] == []
