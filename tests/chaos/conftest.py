"""A gateway per test, on a fresh database."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.gateway import Gateway, gateway


@pytest_asyncio.fixture
async def sluice(tmp_path: Path, database: str, redis: str) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, database, redis) as running:
        yield running
