"""W6. What a long queue costs: claims and pick-ups with a thousand and with a million jobs waiting in Redis.

The two queues stand beside each other in one Redis and are measured in turns. `SLUICE_BENCH_JOBS` says how many the
longer holds.
"""

import asyncio
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench.figures import Figure, quantile
from shared import ids, queue
from shared.queue import Queue
from shared.queue.entries import Entry, Move
from shared.routing import Target

SHORT = 1_000
LONG = int(os.environ.get("SLUICE_BENCH_JOBS", "1000000"))
TENANTS = 20
PAGE = 1_000
ROUNDS, WARM_UP, CLAIMS, PICK_UPS = 5, 20, 300, 500
AT_ONCE = 10
LEASE = 60.0
PAYLOAD = b"{}"
MOST, MOST_BYTES = 1.2, 350


@dataclass(slots=True)
class Waiting:
    """A provider's queue, kept at its length; of each round the seconds of a claim (p50) and of a pick-up (p99)."""

    line: Queue
    provider: str
    claims: list[float] = field(default_factory=list)
    pick_ups: list[float] = field(default_factory=list)
    number: int = 0

    def entries(self, count: int, *, tenant: str | None = None, priority: str = "standard") -> list[Entry]:
        """Return new jobs, of the tenants one after the other."""
        now = datetime.now(UTC)
        self.number += count
        return [
            Entry(
                ids.new_id(), Target(self.provider, "m"), priority, now,
                tenant or f"tenant-{(self.number + index) % TENANTS}", input_tokens=300, output_tokens=200,
            )
            for index in range(count)
        ]  # fmt: skip

    async def fill(self, jobs: int) -> None:
        for _ in range(jobs // PAGE):
            await self.line.enqueue(self.entries(PAGE))

    async def claim(self) -> list[Move]:
        """Claim as many jobs as a worker would; return the moves that end them."""
        found = await self.line.claim(self.provider, most=AT_ONCE, lease=LEASE, payload=PAYLOAD)
        return [Move(one.lane, one.id, None) for one in found.taken]

    async def replace(self, ended: list[Move], *, missing: int) -> None:
        """End what was claimed, and let as many come as are missing."""
        await self.line.move(self.provider, ended)
        await self.line.enqueue(self.entries(missing))

    async def timed_claim(self) -> float:
        begun = time.perf_counter()
        ended = await self.claim()
        took = time.perf_counter() - begun
        assert len(ended) == AT_ONCE, ended
        await self.replace(ended, missing=AT_ONCE)
        return took

    async def timed_pick_up(self) -> float:
        """Return the seconds from before an urgent job is enqueued until a claim has it."""
        [entry] = self.entries(1, tenant="newcomer", priority="interactive")
        ended: list[Move] = []
        begun = time.perf_counter()
        await self.line.enqueue([entry])
        while entry.id not in {move.id for move in ended}:
            ended += await self.claim()
            assert len(ended) < SHORT / 2, "an urgent job is overtaken by half a queue"
        took = time.perf_counter() - begun
        await self.replace(ended, missing=len(ended) - 1)
        return took


async def run(_: Path, __: str, redis_url: str) -> list[Figure]:
    client = queue.connect(redis_url)
    try:
        await client.flushdb()
        line = Queue(client)
        short, long = Waiting(line, "short"), Waiting(line, "long")
        await short.fill(SHORT)
        before = await _memory(client)
        begun = time.perf_counter()
        await long.fill(LONG)
        filled = time.perf_counter() - begun
        each = (await _memory(client) - before) / LONG
        for _round in range(ROUNDS):
            await _measure(short, long)
    finally:
        await client.aclose(close_connection_pool=True)
    return [
        _against(*(one.claims for one in (short, long)), "claim", "µs a job", 1e6 / AT_ONCE),
        _against(*(one.pick_ups for one in (short, long)), "pick-up p99", "ms", 1e3),
        Figure(
            f"W6 {each:.0f} bytes of Redis a job (< {MOST_BYTES}): {LONG:,} jobs of {TENANTS} tenants, "
            f"enqueued at {LONG / filled:,.0f} jobs/s",
            each < MOST_BYTES,
        ),
    ]


async def _measure(short: Waiting, long: Waiting) -> None:
    """Measure a round, one queue and then the other each time, so that what disturbs one disturbs both."""
    both = (short, long)
    for waiting in both * WARM_UP:
        await waiting.timed_claim()
    claims = [await waiting.timed_claim() for waiting in both * CLAIMS]
    pick_ups = [await waiting.timed_pick_up() for waiting in both * PICK_UPS]
    for index, waiting in enumerate(both):
        waiting.claims.append(statistics.median(claims[index::2]))
        waiting.pick_ups.append(quantile(pick_ups[index::2], 0.99))


def _against(short: Sequence[float], long: Sequence[float], name: str, unit: str, scale: float) -> Figure:
    """Compare what was measured in each round with the longer queue with the same of the shorter."""
    ratio = statistics.median(much / little for little, much in zip(short, long, strict=True))
    little, much = (scale * statistics.median(one) for one in (short, long))
    text = (
        f"W6 {name} {ratio:.2f} x (≤ {MOST}): {much:.2f} {unit} with {LONG:,} jobs waiting against {little:.2f} "
        f"with {SHORT:,}"
    )
    return Figure(text, ratio <= MOST)


async def _memory(client: queue.Redis) -> int:
    """Return the bytes Redis uses, once it is not busy rewriting its log."""
    while True:
        found = await client.info()
        if not (found["aof_rewrite_in_progress"] or found["aof_rewrite_scheduled"]):
            return int(found["used_memory"])
        await asyncio.sleep(0.2)
