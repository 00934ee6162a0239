"""A batch of a 50,000-line file: how fast it is validated and queued, at what memory, and how fast its output is read.

The output is written straight into the tables, as if workers had run the lines; progress is asked of it and of a small
batch in turns.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import orjson
import psutil
from redis.asyncio import Redis

from bench.figures import Figure
from bench.stack import stack
from tests.gateway import Gateway, line

LINES = 50_000
MOST_SECONDS, MOST_GROWTH_MB, LEAST_MB_A_SECOND = 10, 100, 20
ASKED = 300
TEXT = "Summarize the following text. " + "Some words of a document. " * 20
ANSWER = orjson.dumps({"object": "chat.completion", "choices": [{"message": {"content": "A summary. " * 90}}]})
PATIENCE = aiohttp.ClientTimeout(total=300)


async def run(directory: Path, database_url: str, redis_url: str) -> list[Figure]:
    async with stack(directory, database_url, redis_url, ("api",)) as gateway:
        small = (await _submit(gateway, 10))["id"]
        await _running(gateway, small)
        process = psutil.Process(gateway.children["api"].pid)
        before = process.memory_info().rss
        most, done = before, asyncio.Event()

        async def watch() -> None:
            nonlocal most
            while not done.is_set():
                most = max(most, process.memory_info().rss)
                await asyncio.sleep(0.02)

        watching = asyncio.create_task(watch())
        file = await _upload(gateway, LINES)
        begun = time.perf_counter()
        large = (await _create(gateway, file))["id"]
        await _running(gateway, large)
        seconds = time.perf_counter() - begun
        done.set()
        await watching
        growth = (most - before) / 10**6
        queued = await _waiting(redis_url)
        await _complete(database_url)
        rate, read = await _read(gateway, large)
        ratio, ms = await _progress(gateway, small, large)
    return [
        Figure(
            f"{LINES:,} lines validated and queued in {seconds:.1f} s (≤ {MOST_SECONDS}); the front door grew by "
            f"{growth:.0f} MB (< {MOST_GROWTH_MB})",
            seconds <= MOST_SECONDS and growth < MOST_GROWTH_MB and queued == LINES + 10,
        ),
        Figure(f"{rate:.0f} MB/s of output (≥ {LEAST_MB_A_SECOND}), {read:,} lines", rate >= 20 and read == LINES),
        Figure(f"its progress takes {ratio:.2f} of that of a batch of 10 lines (≤ 1.3), {ms:.2f} ms", ratio <= 1.3),
    ]


async def _submit(gateway: Gateway, lines: int) -> Any:
    return await _create(gateway, await _upload(gateway, lines))


async def _upload(gateway: Gateway, lines: int) -> str:
    async def content() -> AsyncIterator[bytes]:
        for start in range(0, lines, 500):
            numbers = range(start, min(start + 500, lines))
            yield b"".join(orjson.dumps(line(text=TEXT, custom_id=f"line-{one}")) + b"\n" for one in numbers)

    form = aiohttp.FormData()
    form.add_field("purpose", "batch")
    form.add_field("file", content(), filename="lines.jsonl")
    async with gateway.client.post(f"{gateway.url}/v1/files", data=form, timeout=PATIENCE) as answer:
        return str((await answer.json())["id"])


async def _create(gateway: Gateway, file: str) -> Any:
    asked = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    status, batch, _ = await gateway.ask("POST", "/v1/batches", asked)
    assert status == 202, batch
    return batch


async def _running(gateway: Gateway, batch: str) -> None:
    while True:
        _, found, _ = await gateway.ask("GET", f"/v1/batches/{batch}")
        assert found["status"] in ("validating", "in_progress"), found
        if found["status"] == "in_progress" and await _enqueued(gateway, batch):
            return
        await asyncio.sleep(0.02)


async def _enqueued(gateway: Gateway, batch: str) -> bool:
    """Tell whether the last of a batch's jobs stands in its queue."""
    _, listed, _ = await gateway.ask("GET", f"/v1/jobs?batch_id={batch}&limit=1")
    _, job, _ = await gateway.ask("GET", f"/v1/jobs/{listed['data'][0]['id']}")
    return job["queue"] is not None


async def _waiting(redis_url: str) -> int:
    redis = Redis.from_url(redis_url)
    try:
        return sum([await redis.zcard(key) async for key in redis.scan_iter("sluice:*:waiting:*")])
    finally:
        await redis.aclose()


async def _complete(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("INSERT INTO results (job_id, body) SELECT id, $1 FROM jobs", ANSWER)
        await connection.execute(
            "UPDATE jobs SET status = 'completed', finished_at = now(), batch_sequence = n.number FROM "
            "(SELECT id, row_number() OVER (PARTITION BY batch_id ORDER BY id) AS number FROM jobs) AS n "
            "WHERE jobs.id = n.id"
        )
        await connection.execute(
            "UPDATE batches SET status = 'completed', completed = total, sequence = total, finished_at = now()"
        )
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


async def _read(gateway: Gateway, batch: str) -> tuple[float, int]:
    _, found, _ = await gateway.ask("GET", f"/v1/batches/{batch}")
    url, rates, read = f"{gateway.url}/v1/files/{found['output_file_id']}/content", [], 0
    for _ in range(3):
        size = read = 0
        begun = time.perf_counter()
        async with gateway.client.get(url, timeout=PATIENCE) as answer:
            async for piece in answer.content.iter_any():
                size, read = size + len(piece), read + piece.count(b"\n")
        rates.append(size / 10**6 / (time.perf_counter() - begun))
    return statistics.median(rates), read


async def _progress(gateway: Gateway, small: str, large: str) -> tuple[float, float]:
    times: dict[str, list[float]] = {small: [], large: []}
    for _ in range(ASKED):
        for batch, taken in times.items():
            begun = time.perf_counter()
            await gateway.ask("GET", f"/v1/batches/{batch}")
            taken.append(time.perf_counter() - begun)
    medians = {batch: statistics.median(taken) for batch, taken in times.items()}
    return medians[large] / medians[small], medians[large] * 1000
