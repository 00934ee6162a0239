"""Signing secrets as they are stored: who is signed for by which, and that a key can be replaced."""

import asyncio

import pytest
from sqlalchemy import text

from shared import ids, sealing, signing
from shared.db import engine as db
from shared.db import sealed_rows, webhook_endpoints, webhook_secrets
from shared.db.webhook_endpoints import EndpointFields
from shared.sealing import SealedError
from tests.db.conftest import TENANT
from workers.seal import seal_all

OLD, NEW = (sealing.new_key() for _ in range(2))
KEYS = sealing.keys(OLD)
HEADERS = {"Authorization": "Bearer of-theirs"}


async def endpoint(engine: db.Engine, secret: str) -> webhook_endpoints.EndpointRow:
    id_ = ids.new_id()
    sealed = webhook_endpoints.sealed_headers(KEYS, TENANT, id_, HEADERS)
    fields = EndpointFields("https://hooks.example/", "mine", ["job.completed"], headers=sealed)
    async with db.transaction(engine) as connection:
        await webhook_endpoints.insert(connection, id_, TENANT, fields, signing="v1")
        await webhook_secrets.insert(connection, KEYS, TENANT, id_, secret)
        row = await webhook_endpoints.get(connection, TENANT, id_)
    assert row is not None
    return row


async def test_two_that_ask_first_get_the_same_secret(engine: db.Engine) -> None:
    async def ask() -> str:
        async with db.transaction(engine) as connection:
            return await webhook_secrets.of_tenant(connection, KEYS, TENANT)

    assert len(set(await asyncio.gather(*(ask() for _ in range(4))))) == 1


async def test_those_that_are_valid_sign_newest_first_and_three_at_most(engine: db.Engine) -> None:
    made = [signing.new_secret() for _ in range(5)]
    row = await endpoint(engine, made[0])
    async with db.transaction(engine) as connection:
        for secret in made[1:]:
            await webhook_secrets.rotate(connection, KEYS, TENANT, row.id, secret, overlap=60)
        assert await webhook_secrets.of_endpoint(connection, KEYS, TENANT, row.id) == made[:1:-1]
        assert await webhook_secrets.of_endpoint(connection, KEYS, "another", row.id) == []
        await connection.execute(
            text("UPDATE webhook_secrets SET expires_at = now() - interval '1 second' WHERE expires_at IS NOT NULL")
        )
        assert await webhook_secrets.of_endpoint(connection, KEYS, TENANT, row.id) == made[-1:]


async def test_a_row_cannot_be_passed_off_as_another(engine: db.Engine) -> None:
    mine, other = await endpoint(engine, signing.new_secret()), await endpoint(engine, signing.new_secret())
    async with db.transaction(engine) as connection:
        await connection.execute(
            text("UPDATE webhook_secrets SET sealed = (SELECT sealed FROM webhook_secrets WHERE endpoint_id = :other)"),
            {"other": other.id},
        )
        with pytest.raises(SealedError):
            await webhook_secrets.of_endpoint(connection, KEYS, TENANT, mine.id)
    with pytest.raises(SealedError):
        webhook_endpoints.own_headers(KEYS, TENANT, other.id, mine.headers)


async def test_a_key_is_replaced(engine: db.Engine) -> None:
    secret, plain = signing.new_secret(), signing.new_secret()
    row = await endpoint(engine, secret)
    async with db.transaction(engine) as connection:
        await connection.execute(
            text("INSERT INTO signing_secrets (tenant_id, secret) VALUES (:tenant, :secret)"),
            {"tenant": TENANT, "secret": plain},
        )
    await seal_all(engine, sealing.keys(f"{NEW},{OLD}"))
    new = sealing.keys(NEW)
    async with db.transaction(engine) as connection:
        assert (await connection.execute(text("SELECT count(*) FROM signing_secrets"))).scalar_one() == 0
        assert await webhook_secrets.of_tenant(connection, new, TENANT) == plain
        assert await webhook_secrets.of_endpoint(connection, new, TENANT, row.id) == [secret]
        again = await webhook_endpoints.get(connection, TENANT, row.id)
        assert again is not None
        assert webhook_endpoints.own_headers(new, TENANT, row.id, again.headers) == HEADERS
        assert (await sealed_rows.seal_anew(connection, new, sealed_rows.FIRST)).sealed == 0
        lost = sealing.keys(sealing.new_key())
        found = await sealed_rows.seal_anew(connection, lost, sealed_rows.FIRST)
        assert (found.sealed, found.unopened) == (0, 3)
        assert await webhook_secrets.of_endpoint(connection, new, TENANT, row.id) == [secret]
