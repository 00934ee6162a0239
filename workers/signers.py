"""The secrets that sign webhooks, opened, and remembered for a few seconds, or until their endpoint is changed."""

import asyncio
import time
from datetime import datetime
from uuid import UUID

from shared.db import engine as db
from shared.db import webhook_secrets
from shared.sealing import Keys, SealedError

REMEMBERED_SECONDS = 3.0
_MOST = 10_000

_Named = tuple[str, UUID | None]
_Reading = asyncio.Task[tuple[str, ...]]


class Signers:
    """Who signs for an endpoint, or for a tenant's jobs and batches."""

    def __init__(self, engine: db.Engine, keys: Keys | None) -> None:
        self._engine = engine
        self._keys = keys
        self._known: dict[_Named, tuple[float, datetime | None, _Reading]] = {}

    async def of(self, tenant_id: str, endpoint_id: UUID | None, changed_at: datetime | None) -> tuple[str, ...]:
        """Return the secrets that are valid now; `endpoint_id` of None asks for the tenant's own.

        `changed_at` is when the endpoint was changed last. Raises SealedError, and Unavailable where Postgres is away.
        """
        now, named = time.monotonic(), (tenant_id, endpoint_id)
        until, as_of, reading = self._known.get(named, (0.0, None, None))
        if reading is None or until < now or as_of != changed_at or (reading.done() and reading.exception()):
            if len(self._known) >= _MOST:
                self._known.clear()
            reading = asyncio.create_task(self._read(tenant_id, endpoint_id))
            self._known[named] = now + REMEMBERED_SECONDS, changed_at, reading
        return await asyncio.shield(reading)  # others wait for it too

    async def _read(self, tenant_id: str, endpoint_id: UUID | None) -> tuple[str, ...]:
        keys = self.keys()
        async with db.transaction(self._engine) as connection:
            if endpoint_id is None:
                return (await webhook_secrets.of_tenant(connection, keys, tenant_id),)
            return tuple(await webhook_secrets.of_endpoint(connection, keys, tenant_id, endpoint_id))

    def keys(self) -> Keys:
        """Return what opens secrets. Raises SealedError where there is nothing."""
        if self._keys is None:
            raise SealedError("SLUICE_SECRETS_KEY is not set")
        return self._keys
