"""One front door for the folder, without workers: nothing here runs a job.

A test keeps to jobs or tenants of its own.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from tests.conftest import fresh_database
from tests.gateway import Gateway, gateway

MOST_BYTES = 2_000_000
MOST_REQUESTS = 3_000
MOST_FILE_BYTES = 3_000_000

CONFIG = """
providers:
  simulated: {kind: simulated, base_url: UPSTREAM/v1}
  other: {kind: openai, base_url: UPSTREAM/v1, models: {listed: {}}}
models:
  fast: {targets: [simulated/small]}
usage: {tags: [team, feature]}
"""


@pytest.fixture(scope="package")
async def api(
    tmp_path_factory: pytest.TempPathFactory, database_url: str, template: str, redis_url: str
) -> AsyncIterator[Gateway]:
    env = {
        "SLUICE_MAX_BODY_BYTES": str(MOST_BYTES),
        "SLUICE_MAX_BATCH_REQUESTS": str(MOST_REQUESTS),
        "SLUICE_MAX_FILE_BYTES": str(MOST_FILE_BYTES),
    }
    directory = tmp_path_factory.mktemp("api")
    async with (
        fresh_database(database_url, template) as database,
        gateway(directory, database, redis_url, parts=("api",), config=CONFIG, env=env) as running,
    ):
        yield running


@pytest.fixture
async def nothing_stored(api: Gateway) -> AsyncIterator[None]:
    """Fail a test that leaves a row behind."""
    before = await rows(api)
    yield
    assert await rows(api) == before


@dataclass(frozen=True)
class Tenant:
    """One who asks, with the bootstrap key; nobody else has used this name."""

    api: Gateway
    name: str
    id: str = ""

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Mapping[str, str]]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.api.ask(method, path, body, headers={"X-Sluice-Tenant": self.name, **named})


async def new_tenant(api: Gateway, name: str = "") -> Tenant:
    name = name or f"tenant-{secrets.token_hex(4)}"
    status, made, _ = await api.ask("POST", "/v1/admin/tenants", {"name": name})
    assert status == 200, made
    return Tenant(api, name, made["id"])


@dataclass(frozen=True)
class Key:
    """One who asks with a key of a tenant's own."""

    api: Gateway
    id: str
    secret: str

    async def ask(
        self, method: str, path: str, body: Any = None, *, door: Gateway | None = None, **headers: str
    ) -> tuple[int, Any, Mapping[str, str]]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await (door or self.api).ask(
            method, path, body, headers={"Authorization": f"Bearer {self.secret}", **named}
        )


async def new_key(tenant: Tenant, **fields: Any) -> Key:
    status, made, _ = await tenant.ask("POST", "/v1/admin/keys", {"name": "k", **fields})
    assert status == 200, made
    return Key(tenant.api, made["id"], made["key"])


@pytest.fixture
async def tenant(api: Gateway) -> Tenant:
    return await new_tenant(api)


@pytest.fixture
async def neighbour(api: Gateway) -> Tenant:
    return await new_tenant(api)


async def rows(api: Gateway) -> dict[str, int]:
    """Return how many rows each table has."""
    tables = ("jobs", "payloads", "batches", "idempotency_keys", "deliveries", "attempts", "results")
    counts = ", ".join(f"(SELECT count(*) FROM {table})" for table in tables)
    return dict(zip(tables, await fetch_row(api, f"SELECT {counts}"), strict=True))


async def fetch_row(api: Gateway, query: str, *values: object) -> Any:
    """Return the row of a query on the gateway's database."""
    connection = await asyncpg.connect(api.env["SLUICE_DATABASE_URL"], timeout=10, command_timeout=20)
    try:
        return await connection.fetchrow(query, *values)
    finally:
        await connection.close(timeout=10)


async def raw_answer(api: Gateway, request: bytes) -> tuple[int, bytes]:
    """Send bytes as they are on a connection of their own; return status and body."""
    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        try:
            writer.write(request)
            await writer.drain()
            answer = await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body
