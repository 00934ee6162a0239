"""Accept over HTTP, durable, against the same server answering a constant."""

import asyncio
import statistics
import sys
from pathlib import Path

import orjson

from bench.figures import Figure
from bench.stack import stack
from tests.gateway import ADMIN_KEY, free_port, line

CONNECTIONS = (64, 256)
"""Clients at a time: the more there are, the more of their jobs share a transaction."""
SECONDS = 4
ROUNDS = 3


async def run(directory: Path, database_url: str, redis_url: str) -> list[Figure]:
    constant_port = free_port()
    constant = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.constant_app", str(constant_port))
    async with stack(directory, database_url, redis_url, ("api",)) as gateway:
        await gateway.listening(constant_port)
        await _load(gateway.port, CONNECTIONS[0], 1)
        figures = [await _compare(gateway.port, constant_port, connections) for connections in CONNECTIONS]
    constant.terminate()
    await constant.wait()
    return figures


async def _compare(port: int, constant_port: int, connections: int) -> Figure:
    ratios, ours, theirs = [], [], []
    for _ in range(ROUNDS):
        theirs.append(await _load(constant_port, connections, SECONDS))
        ours.append(await _load(port, connections, SECONDS))
        ratios.append(ours[-1][0] / theirs[-1][0])
    ratio = statistics.median(ratios)
    _, p50, p99 = sorted(ours)[ROUNDS // 2]
    shown = ", ".join(f"{one:.2f}" for one in ratios)
    text = (
        f"{connections} clients: {ratio:.2f} x a constant answer (≥ 0.4; {shown}): "
        f"{statistics.median(one[0] for one in ours):,.0f} against "
        f"{statistics.median(one[0] for one in theirs):,.0f} requests/s; p50 {p50:.1f} ms, p99 {p99:.1f} ms"
    )
    return Figure(text, ratio >= 0.4)


async def _load(port: int, connections: int, seconds: int) -> tuple[float, float, float]:
    arguments = ["127.0.0.1", str(port), "/v1/jobs", str(connections), str(seconds), ADMIN_KEY]
    load = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.load", *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await load.communicate(orjson.dumps(line()))
    rate, p50, p99 = (float(part) for part in printed.split())
    return rate, p50, p99
