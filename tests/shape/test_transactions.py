"""No transaction is open while a provider or a receiver of webhooks is called."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.gateway import CONFIG, gateway, until

CALLS, WEBHOOKS = 20, 5
LONG = """
SELECT application_name, state, query FROM pg_stat_activity
WHERE application_name LIKE 'sluice-%' AND xact_start < clock_timestamp() - interval '1 s'
"""


@pytest.fixture
async def silent() -> AsyncIterator[tuple[str, list[bytes]]]:
    """The URL of a receiver that reads and never answers, and what it has read."""
    heard: list[bytes] = []
    over = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n"))
        await over.wait()
        writer.close()

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", heard
        over.set()


async def test_hanging_calls_and_webhooks_hold_no_transaction(
    tmp_path: Path, database: str, redis: str, silent: tuple[str, list[bytes]]
) -> None:
    url, heard = silent
    config = CONFIG.replace("timeout: 30s", "timeout: 30s, limits: {concurrency: 100}")  # all at once
    async with gateway(tmp_path, database, redis, config=config) as sluice:
        for _ in range(WEBHOOKS):
            await sluice.submit(webhook={"url": url})
        for _ in range(CALLS):
            await sluice.submit(simulate={"latency_ms": 60_000})

        async def hanging() -> tuple[int, int]:
            return len(sluice.calls()), len(heard)

        await until(hanging, lambda found: found == (CALLS + WEBHOOKS, WEBHOOKS), what="all hanging")
        connection = await asyncpg.connect(database, timeout=10, command_timeout=10)
        try:
            # An open transaction would be as old as the calls: look until they are two seconds old.
            since = await connection.fetchval("SELECT clock_timestamp()")

            async def age() -> float:
                assert await connection.fetch(LONG) == []
                return float(await connection.fetchval("SELECT EXTRACT(epoch FROM clock_timestamp() - $1)", since))

            await until(age, lambda seconds: seconds > 2, seconds=10)
            parts = await connection.fetch("SELECT DISTINCT application_name FROM pg_stat_activity")
        finally:
            await connection.close(timeout=10)
        assert await hanging() == (CALLS + WEBHOOKS, WEBHOOKS)
        seen = {row["application_name"] for row in parts}
        assert {"sluice-api", "sluice-worker-simulated", "sluice-deliver", "sluice-maintain"} <= seen
