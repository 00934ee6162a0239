"""At the start of delivery: what is in plain text or sealed by a key that was replaced is sealed by the first key."""

import structlog

from shared.db import engine as db
from shared.db import sealed_rows
from shared.sealing import Keys

log = structlog.get_logger(__name__)


async def seal_all(engine: db.Engine, keys: Keys) -> None:
    """Seal everything by the first key; once this has been logged, the keys behind it are no longer needed.

    Raises Unavailable, Postgres being away.
    """
    while await db.run(engine, lambda connection: sealed_rows.seal_plain(connection, keys)):
        pass
    sealed, unopened, last = 0, 0, sealed_rows.FIRST
    while True:
        async with db.transaction(engine) as connection:
            found = await sealed_rows.seal_anew(connection, keys, last)
        sealed, unopened = sealed + found.sealed, unopened + found.unopened
        if found.last is None:
            break
        last = found.last
    if unopened:
        log.error("secrets.not_opened", rows=unopened, fix="put the key they are sealed by into SLUICE_SECRETS_KEY")
    if sealed:
        log.info("secrets.sealed_anew", rows=sealed)
