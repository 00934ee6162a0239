"""A gateway for a benchmark, without the tests' short leases, and a fresh database each time."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from shared.db import migrate
from tests.gateway import CONFIG, Gateway, gateway

DEFAULTS = {
    "SLUICE_LEASE": "10",
    "SLUICE_RENEWAL": "3",
    "SLUICE_SWEEP_INTERVAL": "1",
    "SLUICE_LOG_LEVEL": "warning",
    "SLUICE_SHUTDOWN_GRACE": "5",
}


@contextlib.asynccontextmanager
async def stack(
    directory: Path,
    database_url: str,
    redis_url: str,
    parts: tuple[str, ...],
    config: str = CONFIG,
    **env: str,
) -> AsyncIterator[Gateway]:
    await migrate.upgrade(database_url)
    async with gateway(directory, database_url, redis_url, parts=parts, config=config, env=DEFAULTS | env) as running:
        yield running
