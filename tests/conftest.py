"""Real servers for the whole suite, and an empty database and Redis for each test.

`SLUICE_TEST_DATABASE_URL` and `SLUICE_TEST_REDIS_URL` name other servers than the embedded ones; the role needs
CREATEDB, and the Redis database of that URL is emptied before each test.
"""

import contextlib
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from redis.asyncio import Redis

from shared.db import migrate
from shared.embedded import postgres
from shared.embedded import redis as embedded_redis


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """Where the session's embedded servers live; as root, Postgres's user must be able to pass through."""
    with tempfile.TemporaryDirectory(prefix="sluice-tests-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        yield directory


@pytest.fixture(scope="session")
async def database_url(server_directory: Path) -> AsyncIterator[str]:
    """The session's Postgres; tests use `database`."""
    if url := os.environ.get("SLUICE_TEST_DATABASE_URL"):
        yield url
        return
    async with postgres.running(server_directory) as server:
        yield server.url


@pytest.fixture(scope="session")
async def redis_url(server_directory: Path) -> AsyncIterator[str]:
    """The session's Redis; tests use `redis`."""
    if url := os.environ.get("SLUICE_TEST_REDIS_URL"):
        yield url
        return
    async with embedded_redis.running(server_directory) as server:
        yield server.url


@pytest.fixture(scope="session")
async def template(database_url: str) -> AsyncIterator[str]:
    """The name of a migrated database that each test's database is copied from."""
    name = await _create(database_url)
    try:
        await migrate.upgrade(_named(database_url, name))
        yield name
    finally:
        await _drop(database_url, name)


@pytest.fixture
async def database(database_url: str, template: str) -> AsyncIterator[str]:
    """The URL of a migrated, empty database of this test's own."""
    async with fresh_database(database_url, template) as url:
        yield url


@pytest.fixture(scope="module")
async def module_database(database_url: str, template: str) -> AsyncIterator[str]:
    """The same for the tests of one module together."""
    async with fresh_database(database_url, template) as url:
        yield url


@contextlib.asynccontextmanager
async def fresh_database(url: str, template: str) -> AsyncIterator[str]:
    name = await _create(url, template=template)
    try:
        yield _named(url, name)
    finally:
        await _drop(url, name)


@pytest.fixture
async def redis(redis_url: str) -> str:
    """The URL of an empty Redis database."""
    client = Redis.from_url(redis_url, socket_timeout=10)
    try:
        await client.flushdb()
    finally:
        await client.aclose()
    return redis_url


def _named(url: str, database: str) -> str:
    return urlsplit(url)._replace(path=f"/{database}").geturl()


async def _create(url: str, *, template: str = "template1") -> str:
    name = f"sluice_{secrets.token_hex(6)}"
    await _execute(url, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    return name


async def _drop(url: str, name: str) -> None:
    await _execute(url, f'DROP DATABASE "{name}" WITH (FORCE)')


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, timeout=10, command_timeout=60)
    try:
        await connection.execute(statement)
    finally:
        await connection.close(timeout=10)
