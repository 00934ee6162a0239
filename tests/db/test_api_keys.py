"""Keys, tenants and the version that tells front doors of a change, as they are stored."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from alembic import command
from sqlalchemy import Connection as SyncConnection
from sqlalchemy import text

from shared import ids
from shared.db import api_keys, audit, migrate, teams, tenants
from shared.db import engine as db
from shared.db.api_keys import KeyFields
from shared.db.audit import Change
from tests.conftest import fresh_database

CHANGE = Change("key.create", "key", "key_1", "default", None, {"name": "k"})


def digest() -> bytes:
    return hashlib.sha256(os.urandom(32)).digest()


async def stored(engine: db.Engine, hash_: bytes, **fields: object) -> UUID:
    id_ = ids.new_id()
    async with db.transaction(engine) as connection:
        given = KeyFields("k", scopes=["read"], **fields)  # type: ignore[arg-type]
        await api_keys.insert(connection, id_, "default", given, prefix="sk-sl-12345678", hash_=hash_)
    return id_


async def test_a_key_is_known_by_any_secret_it_has(engine: db.Engine) -> None:
    first, second, strange = digest(), digest(), digest()
    expires = datetime.now(UTC) + timedelta(days=1)
    id_ = await stored(engine, first, models=["m"], expires_at=expires, limits={"rpm": 5})
    async with db.transaction(engine) as connection:
        await api_keys.rotate(connection, "default", id_, prefix="sk-sl-next", hash_=second, overlap=60)
        known = await api_keys.known(connection, [first, second, strange])
    assert known.keys() == {first, second}
    assert {row.id for row in known.values()} == {id_}
    assert known[second].expires_at == expires
    assert known[first].expires_at - datetime.now(UTC) < timedelta(seconds=61)
    row = known[first]
    assert (row.tenant_id, row.tenant_name, row.scopes, row.models, row.revoked) == (
        "default", "default", ["read"], ["m"], False,
    )  # fmt: skip
    async with db.transaction(engine) as connection:
        await api_keys.revoke(connection, "default", id_)
        assert [one.revoked for one in (await api_keys.known(connection, [first, second])).values()] == [True, True]


async def test_a_later_rotation_never_prolongs_an_overlap(engine: db.Engine) -> None:
    first, second = digest(), digest()
    id_ = await stored(engine, first)
    async with db.transaction(engine) as connection:
        await api_keys.rotate(connection, "default", id_, prefix="b", hash_=second, overlap=60)
        ends = (await api_keys.known(connection, [first]))[first].expires_at
        await api_keys.rotate(connection, "default", id_, prefix="c", hash_=digest(), overlap=3_600)
        known = await api_keys.known(connection, [first, second])
    assert known[first].expires_at == ends
    assert known[second].expires_at > ends


async def test_what_is_another_tenants_is_not_found(engine: db.Engine) -> None:
    id_ = await stored(engine, digest())
    async with db.transaction(engine) as connection:
        await tenants.insert(connection, "tenant_x", name="x")
        team = (await teams.insert(connection, ids.new_id(), "tenant_x", name="t")).id
        assert await api_keys.get(connection, "tenant_x", id_) is None
        assert await api_keys.get(connection, "default", id_) is not None
        assert await teams.get(connection, "default", team) is None
        assert not await api_keys.page(connection, "tenant_x", after=None, limit=5)
    with pytest.raises(Exception, match="foreign key") as refused:  # a key of one tenant in a team of another
        await stored(engine, digest(), team_id=team)
    assert db.is_refused(refused.value)


async def test_the_version_grows_in_the_order_of_commits(engine: db.Engine) -> None:
    async def version() -> int:
        async with db.transaction(engine) as connection:
            return await api_keys.version(connection)

    async def change() -> None:
        async with db.transaction(engine) as connection:
            await audit.record(connection, CHANGE, actor="bootstrap", request_id="r")

    before = await version()
    async with db.transaction(engine) as first:
        await audit.record(first, CHANGE, actor="bootstrap", request_id="r")
        second = asyncio.create_task(change())
        done, _ = await asyncio.wait([second], timeout=0.3)
        assert not done  # else its number could be seen before the first's change
        assert await version() == before
    await second
    assert await version() == before + 2


@pytest.fixture
async def old(database_url: str) -> AsyncIterator[db.Engine]:
    """A database as it was before there were tenants."""
    async with fresh_database(database_url, "template1") as url:
        made = db.create(url, pool_size=1, name="test")
        await _migrated(made, "0004")
        yield made
        await made.dispose()


async def _migrated(engine: db.Engine, revision: str, *, down: bool = False) -> None:
    def run(connection: SyncConnection) -> None:
        config = migrate._config()
        config.attributes["connection"] = connection
        (command.downgrade if down else command.upgrade)(config, revision)

    async with db.transaction(engine) as connection:
        await connection.run_sync(run)


async def test_tenants_that_were_only_names_stay_who_they_are(old: db.Engine) -> None:
    async with db.transaction(old) as connection:
        await connection.execute(text("INSERT INTO signing_secrets (tenant_id, secret) VALUES ('acme', 'x')"))
    for _ in range(2):
        await _migrated(old, "0005")
        async with db.transaction(old) as connection:
            for name in ("acme", "default"):
                row = await tenants.find(connection, name)
                assert row is not None
                assert (row.id, row.name) == (name, name)
            listed = await tenants.page(connection, only=None, after=None, limit=10)
            assert [row.id for row in listed] == ["default", "acme"]
        await _migrated(old, "0004", down=True)
