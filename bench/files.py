"""A file of 200 MB put into Postgres through the front door and read out again: how fast, and what it holds of it."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil

from bench.figures import Figure
from bench.stack import stack

MB = 10**6
SIZE = 200 * MB
MOST_GROWTH_MB = 50
BOUNDARY = "a-boundary-that-is-in-no-line"


async def _form() -> AsyncIterator[bytes]:
    line = b'{"custom_id": "' + b"x" * 982 + b'"}\n'
    yield f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'.encode()
    yield f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'.encode()
    for _ in range(SIZE // MB):
        yield line * (MB // len(line))
    yield f"\r\n--{BOUNDARY}--\r\n".encode()


async def run(directory: Path, database_url: str, redis_url: str) -> list[Figure]:
    async with stack(directory, database_url, redis_url, ("api",)) as gateway:
        await gateway.ask("GET", "/v1/files")
        process = psutil.Process(gateway.children["api"].pid)
        before = most = process.memory_info().rss
        done = asyncio.Event()

        async def watch() -> None:
            nonlocal most
            while not done.is_set():
                most = max(most, process.memory_info().rss)
                await asyncio.sleep(0.02)

        watching = asyncio.create_task(watch())
        started = time.perf_counter()
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        url, patience = gateway.url + "/v1/files", aiohttp.ClientTimeout(total=300)
        async with gateway.client.post(url, data=_form(), headers=headers, timeout=patience) as answer:
            made = await answer.json()
        stored, read = time.perf_counter(), 0
        async with gateway.client.get(f"{url}/{made['id']}/content", timeout=patience) as answer:
            async for piece in answer.content.iter_any():
                read += len(piece)
        ended = time.perf_counter()
        done.set()
        await watching
    growth = (most - before) / MB
    return [
        Figure(
            f"{SIZE / MB / (stored - started):.0f} MB/s up, {SIZE / MB / (ended - stored):.0f} MB/s down; "
            f"the front door grew by {growth:.0f} MB (< {MOST_GROWTH_MB})",
            made["bytes"] == read == SIZE and growth < MOST_GROWTH_MB,
        )
    ]
