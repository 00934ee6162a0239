"""Inline batches: lines/s of one call with 10,000 lines, from the first byte sent to the 202."""

import statistics
import time
from pathlib import Path

from bench.figures import Figure
from bench.stack import stack
from tests.gateway import line

LINES = 10_000
ROUNDS = 5


async def run(directory: Path, database_url: str, redis_url: str) -> list[Figure]:
    rates = []
    text = "Summarize the following text. " + "Some words of a document. " * 20
    async with stack(directory, database_url, redis_url, ("api",)) as gateway:
        for number in range(ROUNDS):
            lines = [line(text=text, custom_id=f"{number}-{index}") for index in range(LINES)]
            begun = time.perf_counter()
            status, batch, _ = await gateway.ask("POST", "/v1/batches", {"requests": lines})
            rates.append(LINES / (time.perf_counter() - begun))
            assert status == 202, batch
    rate = statistics.median(rates)
    return [Figure(f"{rate:,.0f} lines/s (≥ 10,000), median of {ROUNDS} calls of {LINES:,} lines", rate >= 10_000)]
