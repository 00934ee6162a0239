"""Maintenance of files: the content of those that were deleted, have expired or were never finished is removed."""

import structlog

from shared import ids
from shared.db import engine as db
from shared.db import files
from shared.errors import ApiError
from shared.storage import Storages

log = structlog.get_logger(__name__)

PAGE = 100


async def remove_gone(engine: db.Engine, storages: Storages) -> int:
    """Remove them a page at a time; return how many. One that cannot be removed now is left for the next time."""
    removed = 0
    while True:
        async with db.transaction(engine) as connection:
            await files.give_up(connection, limit=PAGE)
            gone = await files.deleted(connection, (files.BATCH, *storages.names), limit=PAGE)
        done = [file.id for file in gone if await _removed(storages, file)]
        async with db.transaction(engine) as connection:
            await files.forget(connection, done)
        removed += len(done)
        if len(done) < PAGE:
            return removed


async def _removed(storages: Storages, file: files.FileRow) -> bool:
    if file.storage == files.BATCH:
        return True  # its batch's results have a life of their own
    try:
        await storages.of(file.storage).delete(file.id)
    except ApiError as error:
        log.warning("file.left", file=ids.show("file", file.id), storage=file.storage, error=str(error))
        return False
    return True
