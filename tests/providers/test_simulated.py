"""The simulated provider over a real socket, in a process of its own, through its adapter."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from shared.errors import ErrorKind, ProviderError
from shared.providers import Call, Completion, Deployment, HttpResponse, Usage
from shared.providers import simulated as speaks
from tests.gateway import until


@dataclass(slots=True)
class Upstream:
    """A running simulated provider, and how to call it."""

    url: str
    log: Path
    client: aiohttp.ClientSession
    _calls: int = field(default=0)

    async def send(self, body: dict[str, Any], *, route: str = "chat/completions") -> HttpResponse:
        """Send what the adapter makes of a body."""
        self._calls += 1
        call = Call(f"/v1/{route}", {"model": "fast", **body}, f"job_{self._calls}-1")
        request = speaks.request(call, Deployment("simulated", "simulated", f"{self.url}/v1", "small"), "sk-unneeded")
        async with self.client.request(
            request.method, request.url, headers=request.headers, data=request.body
        ) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            return HttpResponse(response.status, headers, await response.read())

    async def ask(self, body: dict[str, Any], *, route: str = "chat/completions") -> Completion | ProviderError:
        """Send a body and read the answer by the adapter."""
        response = await self.send(body, route=route)
        if response.status != 200:
            return speaks.error(response)
        return speaks.completion(response, Call(f"/v1/{route}", {"model": "fast", **body}, "job_x-1"))

    async def stats(self) -> Any:
        async with self.client.get(f"{self.url}/stats") as response:
            return await response.json()

    def logged(self) -> list[Any]:
        return [orjson.loads(line) for line in self.log.read_bytes().splitlines()]


Starter = Callable[..., contextlib.AbstractAsyncContextManager[Upstream]]


@pytest.fixture
def started(tmp_path: Path) -> Starter:
    @contextlib.asynccontextmanager
    async def start(*arguments: str) -> AsyncIterator[Upstream]:
        log = tmp_path / "calls.jsonl"
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-m", "shared.embedded.upstream", "--port", "0", "--log", str(log),
            *arguments, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert child.stdout is not None
        try:
            async with asyncio.timeout(30):
                line = (await child.stdout.readline()).decode()
            assert line.startswith("listening on http://127.0.0.1:"), line
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as client:
                yield Upstream(line.split()[-1], log, client)
            child.terminate()
            async with asyncio.timeout(10):
                assert await child.wait() == 0
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()

    return start


def chat(text: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


async def test_a_completion(started: Starter) -> None:
    async with started() as upstream:
        found = await upstream.ask(chat("Say hello.", max_tokens=500))
        assert isinstance(found, Completion)
        body = orjson.loads(found.body)
        assert body["choices"][0]["message"] == {
            "role": "assistant",
            "content": "You said 2 words, beginning with: Say hello.",
        }
        assert body["choices"][0]["finish_reason"] == "stop"
        assert found.usage == Usage(
            input=body["usage"]["prompt_tokens"], output=body["usage"]["completion_tokens"], estimated=False
        )
        assert found.usage.input > 0
        assert found.usage.output > 0
        assert (found.model, found.request_id) == ("small", "req_sim_1")
        [call] = upstream.logged()
        assert (call["id"], call["model"], call["n"]) == ("job_1-1", "small", 0)
        assert abs(call["t"] - time.time()) < 60


async def test_embeddings_and_models(started: Starter) -> None:
    async with started() as upstream:
        found = await upstream.ask({"input": ["a", "b"], "dimensions": 16}, route="embeddings")
        assert isinstance(found, Completion)
        assert [len(row["embedding"]) for row in orjson.loads(found.body)["data"]] == [16, 16]
        assert (found.usage.input, found.usage.output) == (2, 0)
        none = await upstream.ask({"input": []}, route="embeddings")
        assert isinstance(none, ProviderError)
        assert none.kind is ErrorKind.INVALID_REQUEST
        async with upstream.client.get(f"{upstream.url}/v1/models") as response:
            assert (await response.json())["object"] == "list"


async def test_a_plan_of_failures_is_followed_and_then_it_succeeds(started: Starter) -> None:
    plan = [
        {"status": 429, "retry_after": 1.5},
        {"status": 500},
        {"status": 503},
        {"status": 401},
        "html",
        "error_in_200",
        {"status": 7},
    ]
    async with started() as upstream:
        body = chat(simulate={"key": "one", "fail": plan})
        found = [await upstream.ask(body | {"seed": number}) for number in range(len(plan) + 1)]
        errors = [one for one in found if isinstance(one, ProviderError)]
        assert [one.kind for one in errors] == [
            ErrorKind.RATE_LIMITED,
            ErrorKind.SERVER_ERROR,
            ErrorKind.OVERLOADED,
            ErrorKind.INVALID_KEY,
            ErrorKind.INVALID_RESPONSE,
            ErrorKind.SERVER_ERROR,
            ErrorKind.INVALID_REQUEST,
        ]
        assert errors[0].retry_after == 1.5
        assert isinstance(found[-1], Completion)
        assert [call["n"] for call in upstream.logged()] == list(range(8))
        # Another key, and a body of its own where there is none, begin from the start.
        for other in (chat(simulate={"key": "two", "fail": plan}), chat(simulate={"fail": plan})):
            again = await upstream.ask(other)
            assert isinstance(again, ProviderError)
            assert again.kind is ErrorKind.RATE_LIMITED


async def test_broken_connections(started: Starter) -> None:
    async with started() as upstream:
        body = chat(simulate={"fail": ["reset", "truncate"]})
        with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
            await upstream.send(body)
        with pytest.raises(aiohttp.ClientPayloadError):
            await upstream.send(body)
        assert (await upstream.send(body)).status == 200
        stats = await upstream.stats()
        assert (stats["calls"], stats["answered"], stats["in_flight"]) == (3, 1, 0)


@pytest.mark.parametrize("how", [{"fail": ["hang"]}, {"latency_ms": 60_000}])
async def test_who_goes_away_is_noticed(started: Starter, how: dict[str, Any]) -> None:
    async with started() as upstream:
        waiting = asyncio.create_task(upstream.send(chat(simulate=how)))
        await until(upstream.stats, lambda stats: stats["in_flight"] == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        stats = await until(upstream.stats, lambda stats: stats["disconnected"] == 1)
        assert (stats["in_flight"], stats["answered"], stats["peak_in_flight"]) == (0, 0, 1)
        assert upstream.logged()[1:] == [{"id": "job_1-1", "event": "disconnected"}]


async def test_beyond_its_rate_it_refuses_and_says_until_when(started: Starter) -> None:
    async with started("--rpm", "120", "--burst", "3") as upstream:
        found = [await upstream.send(chat(f"{number}")) for number in range(6)]
        assert [one.status for one in found] == [200, 200, 200, 429, 429, 429]
        error = speaks.error(found[-1])
        assert error.kind is ErrorKind.RATE_LIMITED
        assert error.retry_after is not None
        assert 0 < error.retry_after <= 0.5
        by_status = (await upstream.stats())["by_status"]
        assert by_status == {"200": 3, "429": 3}
        refused = await until(lambda: upstream.send(chat("later")), lambda answer: answer.status == 200, seconds=5)
        assert refused.status == 200


async def test_faults_come_at_the_rate_asked_for_and_are_the_same_for_a_seed(started: Starter) -> None:
    async def statuses(seed: int) -> list[int]:
        async with started("--rate-429", "0.2", "--rate-500", "0.2", "--seed", str(seed)) as upstream:
            return [(await upstream.send(chat(f"{number}"))).status for number in range(200)]

    first = await statuses(1)
    assert 20 <= first.count(429) <= 60
    assert 15 <= first.count(500) <= 55
    assert await statuses(1) == first
    assert await statuses(2) != first


async def test_latency_and_context_are_as_asked_for(started: Starter) -> None:
    async with started("--latency-ms", "120", "--context-tokens", "100") as upstream:
        begun = time.monotonic()
        answers = await asyncio.gather(*(upstream.ask(chat(f"{number}")) for number in range(20)))
        assert 0.12 <= time.monotonic() - begun < 2
        assert all(isinstance(one, Completion) for one in answers)
        assert (await upstream.stats())["peak_in_flight"] == 20
        for route, body in (("chat/completions", chat("word " * 200)), ("embeddings", {"input": "word " * 200})):
            found = await upstream.ask(body, route=route)
            assert isinstance(found, ProviderError)
            assert found.kind is ErrorKind.CONTEXT_TOO_LONG


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff"])
async def test_what_is_no_request_is_refused(started: Starter, raw: bytes) -> None:
    async with started() as upstream:
        async with upstream.client.post(f"{upstream.url}/v1/chat/completions", data=raw) as response:
            assert response.status == 400
            assert (await response.json())["error"]["type"] == "invalid_request_error"
        assert (await upstream.stats())["by_status"] == {"400": 1}
