"""W4. A provider is dead for ten seconds while jobs come in, and another stands in for it."""

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp

from bench.figures import Figure, quantile
from bench.paced import LATENCY_MS, REQUEST_LIMIT, RPM, forget, pools, stats
from bench.stack import stack
from tests.gateway import Gateway, free_port

A_SECOND = 25
DIES_AFTER, DEAD_SECONDS, AFTERWARDS = 10, 10, 12
WORST_WAIT = 60
SEEN_SECONDS, MOST_CALLS = 2, 10
"""So long after the death no more than a few calls, probes among them, reach who is dead."""
MOST_UNTIL_USED = 5

CONFIG = """
providers:
  a: {kind: simulated, base_url: UPSTREAM/v1, timeout: 30s, limits: LIMITS}
  b: {kind: simulated, base_url: OTHER/v1, timeout: 30s, limits: LIMITS}
models:
  any: {targets: [a/m], fallbacks: [b/m]}
"""


async def run(directory: Path, database_url: str, redis_url: str) -> list[Figure]:
    await forget(redis_url)
    other = free_port()
    config = CONFIG.replace("OTHER", f"http://127.0.0.1:{other}").replace("LIMITS", f"{{rpm: {RPM}}}")
    async with (
        stack(
            directory, database_url, redis_url, ("api", "maintain"), config=config, SLUICE_LOG_LEVEL="info"
        ) as gateway,
        _upstream(gateway, other),
    ):
        await gateway.start("upstream", *REQUEST_LIMIT)
        await pools(gateway, {"a": "a", "b": "b"})
        submitting = asyncio.create_task(_offer(gateway, A_SECOND * (DIES_AFTER + DEAD_SECONDS + AFTERWARDS)))
        await asyncio.sleep(DIES_AFTER)
        await _die(gateway.upstream_port)
        submitted = await submitting
        listed = await _ended(gateway, submitted)
        [death] = (await stats(gateway.upstream_port))["deaths"]
        stood_in = (await stats(other))["by_status"].get("200", 0)
    return [_outcomes(submitted, listed, stood_in), *_circuit(death, [call["t"] for call in gateway.calls()])]


def _outcomes(submitted: int, listed: list[Any], stood_in: int) -> Figure:
    statuses = Counter(job["status"] for job in listed)
    completed = statuses.pop("completed", 0)
    failed = sum(statuses[name] for name in ("failed", "expired", "cancelled"))
    lost = submitted - completed - failed
    took = [
        (datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(job["created_at"])).total_seconds()
        for job in listed
        if job["finished_at"]
    ] or [0.0]
    text = (
        f"W4 {lost} lost (0), {failed} failed (0) of {submitted} jobs: {stood_in} done by the fallback (> 0), "
        f"p50 {quantile(took, 0.5):.2f} s, p99 {quantile(took, 0.99):.2f} s, longest {max(took):.2f} s"
    )
    return Figure(text, lost == failed == 0 < stood_in)


def _circuit(death: dict[str, Any], called: list[float]) -> list[Figure]:
    began, ends, again = death["began"], death["ends"], death["answered_again"]
    first = sum(began <= at < began + SEEN_SECONDS for at in called)
    later = sum(began + SEEN_SECONDS <= at < ends for at in called)
    shut = (
        f"W4 {later} calls reach the dead provider from {SEEN_SECONDS} s on (≤ {MOST_CALLS}), {first} before that, "
        f"of {A_SECOND * DEAD_SECONDS} offered while it is dead"
    )
    until_used = None if again is None else again - ends
    shown = "never" if until_used is None else f"{until_used:.1f} s after its return"
    return [
        Figure(shut, later <= MOST_CALLS),
        Figure(
            f"W4 used again {shown} (≤ {MOST_UNTIL_USED}), having been dead for {ends - began:.1f} s",
            until_used is not None and until_used <= MOST_UNTIL_USED,
        ),
    ]


async def _offer(gateway: Gateway, number: int) -> int:
    """Submit jobs at a steady rate, however long each takes; return how many were accepted."""
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as calls:
        for index in range(number):
            await asyncio.sleep(max(0.0, begun + index / A_SECOND - time.perf_counter()))
            calls.create_task(gateway.submit(model="any", simulate={"latency_ms": LATENCY_MS}))
    return number


async def _ended(gateway: Gateway, number: int) -> list[Any]:
    """Return all jobs once each has ended, or as they are after a while."""
    deadline = time.perf_counter() + WORST_WAIT
    while True:
        jobs = await _listed(gateway)
        if sum(job["finished_at"] is not None for job in jobs) >= number or time.perf_counter() > deadline:
            return jobs
        await asyncio.sleep(0.5)


async def _listed(gateway: Gateway) -> list[Any]:
    jobs: list[Any] = []
    more, after = True, ""
    while more:
        _, page, _ = await gateway.ask("GET", f"/v1/jobs?limit=100{after}")
        jobs += page["data"]
        more, after = page["has_more"], f"&after={page['last_id']}"
    return jobs


async def _die(port: int) -> None:
    wanted = {"dead_seconds": DEAD_SECONDS}
    url = f"http://127.0.0.1:{port}/control"
    async with aiohttp.ClientSession() as client, client.post(url, json=wanted) as answer:
        assert answer.status == 200, await answer.text()


@contextlib.asynccontextmanager
async def _upstream(gateway: Gateway, port: int) -> AsyncIterator[None]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shared.embedded.upstream", "--port", str(port), *REQUEST_LIMIT,
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await gateway.listening(port)
        yield
    finally:
        child.terminate()
        await child.wait()
