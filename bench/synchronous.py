"""What the queue adds to a synchronous call, and to each chunk of a streamed one."""

import asyncio
import sys
import time
from pathlib import Path

import orjson

from bench.figures import Figure, quantile
from bench.stack import stack
from tests.gateway import Gateway, line

RATE = 50
SECONDS = 15
UPSTREAM_MS = 50
STREAMS = 10


async def run(directory: Path, database_url: str, redis_url: str) -> list[Figure]:
    async with stack(directory, database_url, redis_url, ("api", "maintain", "upstream", "simulated")) as gateway:
        overhead = await _overhead(gateway)
    (directory / "streams").mkdir()
    async with stack(directory / "streams", database_url, redis_url, ("api", "maintain", "simulated")) as gateway:
        chunk = await _chunks(gateway)
    return [overhead, chunk]


async def _overhead(gateway: Gateway) -> Figure:
    """Calls at a steady rate, however long each takes, against the same calls made directly."""
    body = orjson.dumps(line(simulate={"latency_ms": UPSTREAM_MS})["body"])
    direct = await _rate(gateway, f"http://127.0.0.1:{gateway.upstream_port}/v1/chat/completions", body, seconds=5)
    await _rate(gateway, gateway.url + "/v1/chat/completions", body, seconds=3)  # connections are made
    through = await _rate(gateway, gateway.url + "/v1/chat/completions", body, seconds=SECONDS)
    upstream = quantile(direct, 0.5)
    p50, p99 = quantile(through, 0.5) - upstream, quantile(through, 0.99) - upstream
    text = f"overhead at {RATE}/s: p50 {p50:.1f} ms (≤ 12), p99 {p99:.1f} ms (≤ 40) over the upstream's {upstream:.1f}"
    return Figure(text, p50 <= 12 and p99 <= 40)


async def _rate(gateway: Gateway, url: str, body: bytes, *, seconds: int) -> list[float]:
    took: list[float] = []

    async def one() -> None:
        begun = time.perf_counter()
        async with gateway.client.post(url, data=body) as answer:
            await answer.read()
            assert answer.status == 200
        took.append(1000 * (time.perf_counter() - begun))

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as calls:
        for number in range(RATE * seconds):
            await asyncio.sleep(max(0.0, begun + number / RATE - time.perf_counter()))
            calls.create_task(one())
    return took


async def _chunks(gateway: Gateway) -> Figure:
    upstream = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.stamping_upstream", str(gateway.upstream_port)
    )
    try:
        await gateway.listening(gateway.upstream_port)
        body = orjson.dumps(line()["body"] | {"stream": True})
        direct = await _streams(gateway, f"http://127.0.0.1:{gateway.upstream_port}/v1/chat/completions", body)
        await _streams(gateway, gateway.url + "/v1/chat/completions", body)
        through = await _streams(gateway, gateway.url + "/v1/chat/completions", body)
    finally:
        upstream.terminate()
        await upstream.wait()
    p50, p99 = (quantile(through, share) - quantile(direct, share) for share in (0.5, 0.99))
    text = f"{STREAMS} streams: a chunk comes p50 {p50:.1f} ms (≤ 5), p99 {p99:.1f} ms later than directly"
    return Figure(text, p50 <= 5)


async def _streams(gateway: Gateway, url: str, body: bytes) -> list[float]:
    waits: list[float] = []

    async def one() -> None:
        async with gateway.client.post(url, data=body) as answer:
            async for raw in answer.content:
                if raw.startswith(b"data: {") and "sent" in (chunk := orjson.loads(raw[6:])):
                    waits.append(1000 * (time.time() - chunk["sent"]))

    async with asyncio.TaskGroup() as calls:
        for _ in range(STREAMS):
            calls.create_task(one())
    return waits
