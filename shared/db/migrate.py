"""Brings a database's schema up to date, and tells whether it is."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection as SyncConnection
from sqlalchemy import text

from shared.db import engine, partitions

# Two processes that start at once take turns.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('sluice migrate'))")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def latest() -> str | None:
    """Return the newest revision this version of Sluice knows."""
    return ScriptDirectory.from_config(_config()).get_current_head()


async def current(connection: engine.Connection) -> str | None:
    """Return the revision a database is at, None where it is empty."""
    return await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


async def upgrade(url: str) -> None:
    """Bring the database at a `postgresql://` URL to the newest revision and make the partitions of the next days."""
    target = engine.create(url, pool_size=1, name="sluice-migrate")
    try:
        async with engine.transaction(target) as connection:
            await connection.execute(_LOCK)
            await connection.run_sync(_upgrade)
            await partitions.ensure(connection)
    finally:
        await target.dispose()


def _upgrade(connection: SyncConnection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
