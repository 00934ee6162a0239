"""The tables that queries are built from are the tables that the migrations make."""

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from shared.db import engine as db
from shared.db import migrate
from shared.db.tables import metadata


async def test_the_tables_equal_the_migrations(engine: db.Engine) -> None:
    def differences(connection: object) -> list[object]:
        described = {table.name for table in metadata.sorted_tables}
        context = MigrationContext.configure(
            connection,  # type: ignore[arg-type]
            opts={
                "compare_type": True,
                "include_name": lambda name, kind, _: kind != "table" or name in described,
                "include_object": lambda _, __, kind, ___, ____: kind not in ("index", "unique_constraint"),
            },
        )
        return list(compare_metadata(context, metadata))

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_migrating_again_changes_nothing(engine: db.Engine, database: str) -> None:
    await migrate.upgrade(database)
    async with engine.connect() as connection:
        assert await migrate.current(connection) == migrate.latest() == "0008"
